"""The counting of what is left behind: a process that leaks on purpose is caught, one that does not is not."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from inferd.tests.chaos.leaks import holdings

if TYPE_CHECKING:
    from pathlib import Path

LEAKS = {
    "open files": "kept = [open('/dev/null') for _ in range(3)]",
    "threads": "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
    "children": "import subprocess; kept = subprocess.Popen(['sleep', '600'], process_group=0)",
    "zombies": "import os; kept = os.fork() or os._exit(0); os.waitid(os.P_PID, kept, os.WEXITED | os.WNOWAIT)",
    "lies about": "open(sys.argv[1] + '/left', 'w').close()",
    "": "with open('/dev/null'): pass",
}
PROGRAM = """
import sys
print("ready", flush=True)
sys.stdin.readline()
{leak}
print("done", flush=True)
sys.stdin.readline()
try:
    kept.kill()
except (NameError, AttributeError):
    pass
"""


@pytest.mark.parametrize("what", LEAKS)
def test_a_leak_is_seen(tmp_path: Path, what: str) -> None:
    program = PROGRAM.format(leak=LEAKS[what])
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before = holdings(process.pid, tmp_path)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        found = holdings(process.pid, tmp_path).beyond(before)
        process.stdin.write("\n")
        process.stdin.flush()
    assert bool(found) is bool(what)
    assert any(what in one for one in found) or not what
