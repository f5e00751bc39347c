"""Computed prompts in files: what was written is read, and everything else is not there."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends import memfd
from inferd.backends.messages import Run
from inferd.daemon.system import vault as module
from inferd.daemon.system.vault import Filed, Vault, cache_folder, secret

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(32)
RUN = Run([b"a" * 16, b"b" * 16], 500, "tenant")
BODY = random.Random(1).randbytes(1000)


def sealed(content: bytes) -> int:
    fd = memfd.create(len(content))
    with memfd.writable(fd) as view:
        view[:] = content
    memfd.seal(fd)
    return fd


def wrote(vault: Vault, run: Run = RUN, body: bytes = BODY, fingerprint: str = "f") -> Filed:
    fd = sealed(body)
    try:
        return vault.write(fingerprint, run, fd)
    finally:
        os.close(fd)


def content(vault: Vault, filed: Filed) -> bytes | None:
    fd = vault.read(filed)
    if fd is None:
        return None
    try:
        return bytes(memfd.readable(fd, filed.run.n_bytes))  # sealed, too
    finally:
        os.close(fd)


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "kv", KEY)


def test_what_was_written_is_read_by_this_vault_and_the_next(tmp_path: Path, vault: Vault) -> None:
    filed = wrote(vault)
    assert content(vault, filed) == BODY
    after = Vault(tmp_path / "kv", KEY)
    (found,) = after.scan(0.0)
    assert (found.path, found.run, found.fingerprint, found.n_bytes) == (
        filed.path,
        RUN,
        "f",
        filed.path.stat().st_size,
    )
    assert content(after, found) == BODY


def test_nobody_else_may_look(vault: Vault) -> None:
    filed = wrote(vault)
    assert filed.path.stat().st_mode & 0o777 == 0o600
    assert filed.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_run_is_replaced_and_one_of_another_model_is_not(vault: Vault) -> None:
    first, again, other = wrote(vault), wrote(vault, body=BODY[::-1]), wrote(vault, fingerprint="g")
    assert first.path == again.path != other.path
    assert (content(vault, again), content(vault, other)) == (BODY[::-1], BODY)
    assert len(vault.scan(0.0)) == 2


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_byte_that_changed_anywhere_is_a_miss(tmp_path_factory: pytest.TempPathFactory, at: int, by: int) -> None:
    vault = Vault(tmp_path_factory.mktemp("kv"), KEY)
    filed = wrote(vault)
    raw = bytearray(filed.path.read_bytes())
    raw[at % len(raw)] ^= by
    filed.path.write_bytes(raw)
    assert content(vault, filed) is None
    assert not filed.path.exists()


@given(st.integers(0, 10**6))
def test_a_file_that_was_cut_or_has_grown_is_a_miss(tmp_path_factory: pytest.TempPathFactory, n: int) -> None:
    vault = Vault(tmp_path_factory.mktemp("kv"), KEY)
    filed = wrote(vault)
    raw = filed.path.read_bytes()
    filed.path.write_bytes((raw + b"x" * 100)[: n % (len(raw) + 100)])
    if filed.path.read_bytes() != raw:
        assert content(vault, filed) is None


def test_a_file_whose_header_was_changed_is_read_by_nobody(tmp_path: Path, vault: Vault) -> None:
    """It says that it belongs to another tenant: the header is believed until the whole file is checked."""
    filed = wrote(vault)
    filed.path.write_bytes(filed.path.read_bytes().replace(b"tenant", b"enemy!"))
    (found,) = vault.scan(0.0)
    assert found.run.salt == "enemy!"
    assert content(vault, found) is None


def test_a_file_of_another_key_or_another_tenant_is_a_miss(tmp_path: Path, vault: Vault) -> None:
    filed = wrote(vault)
    assert content(Vault(tmp_path / "kv", b"x" * 32), filed) is None
    filed = wrote(vault)
    other = Run(RUN.names, RUN.block_bytes, "other")
    assert content(vault, Filed(filed.path, "f", other, filed.n_bytes, 0.0)) is None


def test_what_is_old_damaged_or_unfinished_goes_at_the_scan_and_nothing_that_is_not_ours(
    tmp_path: Path, vault: Vault
) -> None:
    old, new = wrote(vault), wrote(vault, fingerprint="g")
    os.utime(old.path, (1.0, 1.0))
    folder = tmp_path / "kv"
    (folder / ".inferd-kv-1").write_bytes(b"x")
    (folder / f"{'0' * 32}.kv").write_bytes(b"x" * 100)
    (folder / f"{'1' * 32}.kv").touch()
    (folder / f"{'2' * 32}.kv").symlink_to(new.path)
    os.mkfifo(folder / f"{'3' * 32}.kv")
    for name in ("thesis.txt", "model.gguf", "notes.kv", ".hidden"):
        (folder / name).write_text("mine")
    assert [filed.path for filed in vault.scan(time.time() - 60)] == [new.path]
    assert sorted(os.listdir(folder)) == sorted([new.path.name, "thesis.txt", "model.gguf", "notes.kv", ".hidden"])


def test_a_folder_is_used_by_one_daemon_at_a_time(tmp_path: Path, vault: Vault) -> None:
    vault.lock()
    with pytest.raises(OSError, match="another daemon"):
        Vault(tmp_path / "kv", KEY).lock()
    os.close(vault._lock)


def test_a_file_that_is_taken_away_while_it_is_read_leaks_nothing(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    filed = wrote(vault)
    real = vault._checked

    def checked(source: int, filed: Filed) -> int:
        filed.path.unlink()
        return real(source, filed)

    monkeypatch.setattr(vault, "_checked", checked)
    n_open = len(os.listdir("/proc/self/fd"))
    assert content(vault, filed) == BODY
    assert len(os.listdir("/proc/self/fd")) == n_open


def test_what_was_read_last_is_found_last(vault: Vault) -> None:
    first, second = wrote(vault), wrote(vault, fingerprint="g")
    for filed in (first, second):
        os.utime(filed.path, (1000.0, 1000.0))
    assert content(vault, first) == BODY
    assert [filed.path for filed in vault.scan(0.0)] == [second.path, first.path]


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path, vault: Vault) -> None:
    filed = wrote(vault)
    filed.path.rename(tmp_path / "moved")
    filed.path.symlink_to(tmp_path / "moved")
    assert content(vault, filed) is None


def test_a_folder_that_is_not_there_is_empty(vault: Vault) -> None:
    assert vault.scan(0.0) == []


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, part: bytes) -> None:
        raise OSError(28, "No space left on device")

    wrote(vault)
    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(OSError, match="No space"):
        wrote(vault, fingerprint="g")
    assert len(os.listdir(tmp_path / "kv")) == 1


def test_the_key_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "state" / "cache.key"
    key = secret(path)
    assert (len(key), secret(path)) == (32, key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["cache.key"]
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="5 bytes"):
        secret(path)


@pytest.mark.parametrize(
    ("given", "environ", "expected"),
    [
        ("/x/y", {"CACHE_DIRECTORY": "/c"}, "/x/y"),
        ("", {"CACHE_DIRECTORY": "/c:/d", "XDG_CACHE_HOME": "/e"}, "/c/kv"),
        ("", {"XDG_CACHE_HOME": "/e", "HOME": "/h"}, "/e/inferd/kv"),
        ("", {"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/inferd/kv"),
    ],
)
def test_where_the_files_are(given: str, environ: dict[str, str], expected: str) -> None:
    assert str(cache_folder(given, environ)) == expected
