"""What can be forbidden of files; that it is, is shown in test_cage.py."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from inferd.backends import landlock

if TYPE_CHECKING:
    from pathlib import Path

CHILD = """
import os, sys
from inferd.backends import landlock
ruled, folder = sys.argv[1:]
landlock.restrict([(os.open(ruled, os.O_PATH), landlock.READ)])
print(open(os.path.join(folder, "x")).read(), end="", flush=True)
print(os.listdir(folder))
"""
HERE = pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")


def test_newer_kernels_forbid_more() -> None:
    said = [landlock.files(version) for version in range(1, 9)]
    assert all(old & new == old for old, new in pairwise(said))
    assert [rights.bit_count() for rights in said] == [13, 14, 15, 15, 16, 16, 16, 16]


@HERE
def test_a_rule_for_a_file_may_be_one_for_folders(tmp_path: Path) -> None:
    """What only folders have is left out, where the kernel would refuse it."""
    (tmp_path / "x").write_text("read, ")
    for ruled, printed in ((tmp_path, "read, ['x']\n"), (tmp_path / "x", "read, ")):
        command = [sys.executable, "-c", CHILD, str(ruled), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout == printed, done.stderr
        assert ("PermissionError" in done.stderr) == (ruled != tmp_path)  # of the folder, not of the rule


@HERE
def test_what_the_kernel_refuses_is_told() -> None:
    fd = os.open("/", os.O_PATH)
    try:
        with pytest.raises(OSError, match="No message"):  # a rule that allows nothing
            landlock.restrict([(fd, 0)])
    finally:
        os.close(fd)
