"""Tokens as they are made, kept and read."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from typing import TYPE_CHECKING

import pytest

from inferd.daemon.domain.access import Role
from inferd.daemon.system import tokens as it

if TYPE_CHECKING:
    from pathlib import Path

HASH = hashlib.sha256(b"secret").hexdigest()


def test_a_token_has_256_random_bits_and_none_of_them_is_kept() -> None:
    text, kept = it.mint("ada", Role.USER, "team", 10.0, 60.0)
    assert re.fullmatch(r"inferd_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", text)
    assert kept.sha256 == it.digest_of(text) == hashlib.sha256(text.encode()).hexdigest()
    assert (kept.created_unix_s, kept.expires_unix_s) == (10.0, 70.0)
    assert text.partition("_")[2].partition("_")[0] == kept.id
    assert text.rpartition("_")[2] not in repr(kept)
    assert it.mint("ada", Role.USER, "team", 10.0, None)[0] != text


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    text, token = it.mint("ada", Role.ADMIN, "team", 10.0, None)
    kept = it.Kept(tokens=(token,), revoked=(HASH,))
    assert it.save(kept, tmp_path)
    assert it.load(tmp_path) == kept
    path = tmp_path / "tokens.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert text not in path.read_text()
    assert json.loads(path.read_text())["tokens"][0]["role"] == "admin"


def test_no_file_is_no_tokens(tmp_path: Path) -> None:
    assert it.load(tmp_path) == it.Kept()


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"tokens": [{}]}', b'{"other": 1}', b"\xff" * 10, b"[" * 100_000])
def test_a_damaged_file_is_not_the_same_as_none(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "tokens.json").write_bytes(raw)
    with pytest.raises(it.Unreadable):
        it.load(tmp_path)


def test_a_folder_in_its_place_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "tokens.json").mkdir()
    with pytest.raises(it.Unreadable):
        it.load(tmp_path)


def bootstrapped(folder: Path, text: str) -> list[tuple[str, Role, str]]:
    (folder / "tokens").write_text(text)
    found = it.from_credentials(5.0, {"CREDENTIALS_DIRECTORY": str(folder)})
    assert {token.sha256 for token in found} <= {HASH}
    return [(token.name, token.role, token.tenant) for token in found]


def test_the_services_file_has_a_line_for_each(tmp_path: Path) -> None:
    text = f"# who\n\nada user team {HASH}\n  bob admin ops {HASH.upper()}  # as a comment\n"
    assert bootstrapped(tmp_path, text) == [("ada", Role.USER, "team"), ("bob", Role.ADMIN, "ops")]
    assert bootstrapped(tmp_path, "") == []


@pytest.mark.parametrize(
    "line",
    [
        "ada user team",
        f"ada king team {HASH}",
        "ada user team secret",
        f"ada user {'t' * 65} {HASH}",
        f"a user t {HASH} x",
    ],
)
def test_a_wrong_line_is_left_out_and_not_shown(tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture) -> None:
    assert bootstrapped(tmp_path, f"{line}\nbob user t {HASH}\n") == [("bob", Role.USER, "t")]
    assert "line 1" in caplog.text
    assert "secret" not in caplog.text


def test_without_the_services_file_there_are_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert it.from_credentials(5.0, {}) == it.from_credentials(5.0, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == []
    assert not caplog.records
    (tmp_path / "tokens").mkdir()
    assert it.from_credentials(5.0, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == []
    assert "cannot be read" in caplog.text


def test_a_token_that_was_written_by_mistake_is_cut() -> None:
    text, _ = it.mint("ada", Role.USER, "team", 10.0, None)
    assert it.without_secret(f"x {text} y") == f"x {text[:16]}... y"
    assert it.without_secret("ada") == "ada"
