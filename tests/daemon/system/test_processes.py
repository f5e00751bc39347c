"""The kernel's word on one of our processes."""

from __future__ import annotations

import mmap
import os
import subprocess

from inferd.daemon.system.processes import memory_bytes


def test_we_ourselves_take_memory_and_part_of_it_is_private() -> None:
    size = memory_bytes(os.getpid())
    assert size is not None
    resident, private = size
    assert 0 < private < resident


def test_touched_anonymous_pages_count_as_private() -> None:
    n_bytes = 64 << 20
    before = memory_bytes(os.getpid())
    with mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        for offset in range(0, n_bytes, mmap.PAGESIZE):
            block[offset] = 1
        after = memory_bytes(os.getpid())
    assert before is not None
    assert after is not None
    assert after[1] - before[1] > n_bytes // 2


def test_a_process_that_is_gone_has_no_size() -> None:
    done = subprocess.Popen(["/bin/true"])
    done.wait()
    assert memory_bytes(done.pid) is None
