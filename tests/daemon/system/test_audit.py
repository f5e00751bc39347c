"""Lines of the audit log, whatever the disk does."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from inferd.daemon.system.audit import FILE, Audit, Line, audit_file

if TYPE_CHECKING:
    import pytest


def line(target: str = "demo") -> Line:
    return Line(
        unix_s=1.5,
        who="socket",
        role="operator",
        tenant="default",
        door="socket",
        peer="unix:",
        method="LoadModel",
        target=target,
        outcome="ok",
    )


def test_a_line_is_one_json_object_for_its_owners_eyes(tmp_path: Path) -> None:
    path = tmp_path / "logs" / FILE
    audit = Audit(path)
    audit.note(line("a\nb"))
    audit.note(line())
    audit.close()
    first, second = (json.loads(text) for text in path.read_text().splitlines())
    assert first["target"] == "a\nb"
    assert second == {
        "unix_s": 1.5, "who": "socket", "role": "operator", "tenant": "default", "door": "socket", "peer": "unix:",
        "method": "LoadModel", "target": "demo", "outcome": "ok",
    }  # fmt: skip
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_opened_until_there_is_something(tmp_path: Path) -> None:
    Audit(tmp_path / "logs" / FILE).close()
    assert not list(tmp_path.iterdir())


def test_the_next_daemon_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for _ in range(2):
        audit = Audit(tmp_path / FILE)
        audit.note(line())
        audit.close()
    assert len((tmp_path / FILE).read_text().splitlines()) == 2


def test_files_are_rotated_by_their_size_and_the_oldest_goes(tmp_path: Path) -> None:
    audit = Audit(tmp_path / FILE, max_file_bytes=1000)
    for i in range(100):
        audit.note(line(f"m{i}"))
    audit.close()
    files = sorted(tmp_path.iterdir())
    assert 2 < len(files) <= 8
    assert all(path.stat().st_size <= 1000 for path in files)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert '"m99"' in (tmp_path / FILE).read_text()


def test_what_cannot_be_written_is_told_once_and_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / FILE
    path.mkdir()
    audit = Audit(path)
    audit.note(line())
    audit.note(line())
    audit.close()
    assert caplog.text.count("cannot be written") == 1
    path.rmdir()
    audit = Audit(path)
    audit.note(line())
    audit.close()
    assert path.is_file()


def test_a_link_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    audit = Audit(tmp_path / FILE)
    audit.note(line())
    audit.close()
    assert not (tmp_path / "elsewhere").read_text()
    assert "cannot be written" in caplog.text


def test_where_it_lies() -> None:
    assert audit_file({"LOGS_DIRECTORY": "/var/log/inferd:/x"}) == Path("/var/log/inferd") / FILE
    assert audit_file({"STATE_DIRECTORY": "/var/lib/inferd"}) == Path("/var/lib/inferd") / FILE
