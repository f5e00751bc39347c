"""The kernel's word on one of our processes."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.system.processes import Rss, activity, memory_bytes, rss

if TYPE_CHECKING:
    from pathlib import Path

N_BYTES = 64 << 20


def touch(block: mmap.mmap) -> None:
    for offset in range(0, N_BYTES, mmap.PAGESIZE):
        block[offset] = 1


def grown(before: Rss | None, after: Rss | None) -> Rss:
    assert before is not None
    assert after is not None
    return Rss(*(b - a for a, b in zip(before, after, strict=True)))


def test_we_ourselves_take_memory_and_part_of_it_is_private() -> None:
    size = memory_bytes(os.getpid())
    assert size is not None
    resident, private = size
    assert 0 < private < resident


def test_both_ways_to_ask_agree() -> None:
    size, parts = memory_bytes(os.getpid()), rss(os.getpid())
    assert size is not None
    assert parts is not None
    assert parts.total == pytest.approx(size[0], rel=0.05)
    assert parts.anon == pytest.approx(size[1], rel=0.05)


def test_touched_anonymous_pages_are_ours() -> None:
    before, statm_before = rss(os.getpid()), memory_bytes(os.getpid())
    with mmap.mmap(-1, N_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        touch(block)
        after, statm_after = rss(os.getpid()), memory_bytes(os.getpid())
    more = grown(before, after)
    assert more.anon > N_BYTES // 2
    assert more.file < N_BYTES // 8
    assert statm_before is not None
    assert statm_after is not None
    assert statm_after[1] - statm_before[1] > N_BYTES // 2


def test_pages_of_a_mapped_file_are_counted_apart(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(N_BYTES))
    before = rss(os.getpid())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as block:
        assert sum(block[offset] for offset in range(0, N_BYTES, mmap.PAGESIZE)) == 0
        after = rss(os.getpid())
    more = grown(before, after)
    # A folder in memory holds its files as shared memory.
    assert more.file + more.shmem > N_BYTES // 2
    assert more.anon < N_BYTES // 8


def test_a_process_that_is_gone_has_no_size() -> None:
    done = subprocess.Popen(["/bin/true"])
    done.wait()
    assert memory_bytes(done.pid) is None
    assert rss(done.pid) is None


def test_a_dead_process_that_nobody_reaped_has_no_size() -> None:
    dead = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    assert rss(dead.pid) is None
    dead.wait()


def test_whether_a_process_stands_still_is_its_letter() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as one:
        try:
            assert activity(one.pid).state in "RSD"
            one.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, one.pid, os.WSTOPPED)
            assert activity(one.pid).state == "T"
        finally:
            one.kill()
    assert activity(one.pid).state == ""
