from __future__ import annotations

import os
import subprocess
import sys

import pytest

from inferd.backends.blob import INLINE_BYTES, Blob

LONG = os.urandom(INLINE_BYTES)


def test_short_ones_stay_in_their_frame() -> None:
    blob = Blob.of([b"ab", memoryview(b"cd")])
    assert (blob.n_bytes, blob.data, blob.fd) == (4, b"abcd", None)
    assert (blob.read(), bytes(blob.view())) == (b"abcd", b"abcd")
    blob.close()


def test_long_ones_are_in_a_file() -> None:
    blob = Blob.of([LONG, b"tail"])
    assert blob.data is None
    assert blob.read() == LONG + b"tail" == bytes(blob.view())
    fd = blob.fd
    blob.close()
    blob.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd or -1)


def test_a_file_that_was_cut_short_is_seen() -> None:
    blob = Blob.of([LONG, b"tail"])
    assert blob.fd is not None
    os.ftruncate(blob.fd, 10)
    with pytest.raises(OSError, match="10 bytes"):
        blob.read()
    blob.close()
    with pytest.raises(OSError, match="0 bytes"):
        Blob(5, data=b"").read()


def test_nothing_is_something() -> None:
    assert Blob.of([]).read() == b""


FREED = """
import os
from inferd.backends.blob import give_back_freed_memory, keep_freed_memory

def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

keep_freed_memory()
large = [bytes(bytearray(os.urandom(1) * (8 << 20))) for _ in range(8)]
held = resident_bytes()
large.clear()
kept = resident_bytes()
give_back_freed_memory()
print(held - kept < 16 << 20, held - resident_bytes() > 32 << 20)
"""


def test_what_was_freed_is_kept_and_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
