"""Every child of a real daemon is shut in, and told no secret."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inferd.backends import cage
from inferd.tests.e2e.daemons import children

if TYPE_CHECKING:
    from inferd.tests.e2e.daemons import Launcher

CANARY = "canary-5f1e"


@pytest.mark.skipif(not cage.abilities().whole, reason="this kernel has no whole cage")
def test_workers_and_prompt_helpers_are_shut_in_and_told_no_secret(launcher: Launcher) -> None:
    launcher.environment = {"HF_TOKEN": CANARY, "SOMETHING": "else"}
    daemon = launcher.start('[fake]\nenabled = true\n[workers]\nsandbox = "required"\n', name="caged")
    assert daemon.client.generate("small", "fake:tokens=3").text()
    below = children(daemon.process.pid)
    assert len(below) == 2
    for pid in below:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        told = Path(f"/proc/{pid}/environ").read_text()
        assert CANARY not in told
        assert "SOMETHING=else" in told
    assert CANARY in Path(f"/proc/{daemon.process.pid}/environ").read_text()
    assert "sandbox_weak" not in [warning.code for warning in daemon.snapshot().warnings]
    assert f"small is shut in: {cage.abilities()}" in daemon.log.read_text()
