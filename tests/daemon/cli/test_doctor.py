"""`inferd doctor`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from inferd.daemon.cli.app import app
from inferd.daemon.domain.device import (
    Backends,
    CpuFacts,
    Device,
    DeviceKind,
    DeviceState,
    Hardware,
    HostMemory,
    LlamaFacts,
)
from inferd.daemon.system import hardware

CPU = CpuFacts("A Processor", "acme", "x86_64", 8, 4, None, 8, None, 4, ("avx2",), (), None)
CARD = Device("gpu0", DeviceKind.GPU, "nvidia", "[b]Card", DeviceState.NO_DRIVER, "no driver is bound")
LLAMA = LlamaFacts("0.3.36", False, None, ())


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = HostMemory(16 * 2**30, 8 * 2**30, limit_bytes=12 * 2**30)
    found = Hardware(CPU, memory, (CARD,), Backends(LLAMA, None, (("onnxruntime", "it is not installed"),)))
    monkeypatch.setattr(hardware, "survey", lambda: found)


def test_people_see_facts_and_advice() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    shown = " ".join(result.stdout.split())
    for part in ("A Processor (4 cores, 8 threads", "8.0 GiB available of 16.0 GiB, limited to 12.0 GiB", "[b]Card"):
        assert part in shown
    assert "0.3.36 (CPU only)" in shown
    assert "missing: it is not installed" in shown
    assert "no_driver: no driver is bound" in shown


def test_the_json_twin() -> None:
    shown = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert set(shown) == {"cpu", "memory", "devices", "backends", "sandbox", "advice"}
    assert shown["devices"][0]["state"] == "no_driver"


def test_advice_is_shown_with_its_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    from inferd.daemon.cli.doctor import show
    from inferd.daemon.system.doctor import report

    found = report(hardware.survey())
    found["advice"] = [{"code": "c", "severity": "warning", "message": "it hurts", "remedy": "do " + "x" * 200}]
    show(found)
    assert "warning: it hurts\n  do " + "x" * 200 + "\n" in capsys.readouterr().out
    found["advice"] = []
    show(found)
    assert "nothing to mend" in capsys.readouterr().out
