"""The units: how exposed they leave the daemon, and that they fit the rest."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "packaging" / "systemd"
DROPINS = sorted(path.stem for path in (SYSTEMD / "dropins").glob("*.conf"))
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")


def settings(name: str) -> dict[str, list[str]]:
    """Every value by its key."""
    found: dict[str, list[str]] = {}
    for line in (SYSTEMD / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def laid_out(folder: Path, *dropins: str) -> Path:
    """The unit with drop-ins, as systemd would find them."""
    shutil.copy(SYSTEMD / "inferd.service", folder)
    beside = folder / "inferd.service.d"
    beside.mkdir()
    for name in dropins:
        shutil.copy(SYSTEMD / "dropins" / f"{name}.conf", beside)
    return folder / "inferd.service"


def exposure(unit: Path) -> float:
    """systemd's own score, from 0 (boxed in) to 10."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for inferd\.service: (\d+\.\d+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


@needs_systemd
@pytest.mark.parametrize(
    ("dropins", "limit"),
    [((), 1.6), (("uds-only",), 0.9), (("uds-only", "cpu-only"), 0.7), (("lan",), 1.7), (("pull",), 1.8)],
)
def test_how_exposed_the_daemon_is(tmp_path: Path, dropins: tuple[str, ...], limit: float) -> None:
    assert exposure(laid_out(tmp_path, *dropins)) <= limit


@needs_systemd
def test_the_score_sees_what_a_dropin_takes_away(tmp_path: Path) -> None:
    unit = laid_out(tmp_path)
    (tmp_path / "inferd.service.d" / "open.conf").write_text("[Service]\nUser=root\nSystemCallFilter=\n")
    assert exposure(unit) > 2


@needs_systemd
@pytest.mark.parametrize("dropin", [None, *DROPINS])
def test_systemd_understands_every_line(tmp_path: Path, dropin: str | None) -> None:
    unit = laid_out(tmp_path, *([dropin] if dropin else []))
    said = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False).stderr
    ours = [line for line in said.splitlines() if "inferd.service" in line and "not executable" not in line]
    assert [line for line in ours if "man " not in line] == []


def test_exits_that_a_restart_cannot_mend_are_not_restarted() -> None:
    for unit in ("inferd.service", "inferd-user.service"):
        assert settings(unit)["RestartPreventExitStatus"] == ["2 75 78"]


def test_what_runs_has_time_to_end_before_it_is_killed() -> None:
    from inferd.daemon.domain.config import Server

    (limit,) = settings("inferd.service")["TimeoutStopSec"]
    assert int(limit.removesuffix("s")) > Server().drain_s + 5


def test_the_users_unit_asks_for_nothing_that_needs_root() -> None:
    needs_root = ("User", "DeviceAllow", "LoadCredential", "IPAddressDeny", "CapabilityBoundingSet", "PrivateNetwork")
    assert [key for key in needs_root if key in settings("inferd-user.service")] == []
    assert [key for key in needs_root[:-1] if key not in settings("inferd.service")] == []


def test_the_admin_sockets_folder_is_the_one_that_may_be_written() -> None:
    (line,) = [line for line in (SYSTEMD / "tmpfiles.conf").read_text().splitlines() if "/run/" in line]
    assert line.split()[1:5] == ["/run/inferd-admin", "2750", "inferd", "inferd-admin"]
    assert settings("inferd.service")["ReadWritePaths"] == ["-/run/inferd-admin"]
