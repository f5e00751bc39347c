"""What can be forbidden of files; that it is, is shown in test_cage.py."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from inferd.backends import landlock

if TYPE_CHECKING:
    from pathlib import Path

CHILD = """
import os, sys
from inferd.backends import landlock
fd = os.open(sys.argv[1], os.O_PATH)
landlock.restrict([(fd, landlock.READ)])
sys.exit(0 if os.listdir(sys.argv[1]) == ["x"] and not os.access("/", os.W_OK | os.R_OK) is None else 1)
"""


def test_newer_kernels_forbid_more() -> None:
    said = [landlock.files(version) for version in range(1, 9)]
    assert all(old & new == old for old, new in zip(said, said[1:], strict=False))
    assert [bin(rights).count("1") for rights in said] == [13, 14, 15, 15, 16, 16, 16, 16]


@pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")
def test_a_rule_for_a_file_may_be_one_for_folders(tmp_path: Path) -> None:
    """What only folders have is left out, where the kernel would refuse it."""
    (tmp_path / "x").touch()
    code = CHILD.replace("sys.argv[1], os.O_PATH", "sys.argv[1] + '/x', os.O_PATH")
    for program, expected in ((CHILD, 0), (code, 1)):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == expected, done.stderr
        assert ("Permission denied" in done.stderr) == (expected == 1)  # of the folder, not of the rule


def test_what_the_kernel_refuses_is_told() -> None:
    if landlock.abi():
        with pytest.raises(OSError, match=os.strerror(22)):
            landlock.restrict([(os.open("/", os.O_PATH), 1 << 60), (0, 0)])
