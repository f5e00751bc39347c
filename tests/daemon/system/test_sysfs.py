"""The kernel's small files, and everything that is not one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.daemon.system.sysfs import Root, natural, parse_cpus, parse_int, parse_pci, parse_table

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "value"),
    [("12\n", 12), (" -1", -1), ("0x10de", 0x10DE), ("18446744073709551615", (1 << 64) - 1)]
    + [(text, None) for text in ("", "max", "1.5", "12 kB", "99999999999999999999", "٣", "0x", None)],
)
def test_a_number_is_a_number_or_none(text: str | None, value: int | None) -> None:
    assert parse_int(text) == value


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0-3,8,10-11", (0, 1, 2, 3, 8, 10, 11)), ("5", (5,)), ("", ()), ("1-0", ())]
    + [(text, None) for text in ("a-b", "0-", "0-99999999999", "0-999999", None)],
)
def test_cpu_lists(text: str | None, cpus: tuple[int, ...] | None) -> None:
    assert parse_cpus(text) == cpus


@pytest.mark.parametrize(
    ("text", "pci"),
    [
        ("00000000:01:00.0", "0000:01:00.0"),
        ("0000:C1:1F.7", "0000:c1:1f.7"),
        ("01:00.0", "0000:01:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"),
        ("0000:01:00.8", None),
        ("eth0", None),
        (None, None),
    ],
)
def test_one_form_of_pci_addresses(text: str | None, pci: str | None) -> None:
    assert parse_pci(text) == pci


def test_a_table_keeps_the_first_of_equal_keys() -> None:
    assert parse_table("a: 1\nnonsense\nb:2\na: 3\n", ":") == {"a": "1", "b": "2"}
    assert parse_table("anon 5\n\nfile 6") == {"anon": "5", "file": "6"}


def test_card10_comes_after_card2() -> None:
    assert sorted(["card10", "card2", "7", "-", ""], key=natural) == ["", "7", "-", "card2", "card10"]


@settings(deadline=None)
@given(st.text())
def test_parsers_never_raise(text: str) -> None:
    parse_int(text), parse_cpus(text), parse_pci(text), parse_table(text), parse_table(text, ":")
    assert sorted([text, "a1"], key=natural)


def test_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "loop").symlink_to("loop")
    root = Root(tmp_path)
    assert root.text("missing") is None
    assert root.text("folder") is None
    assert root.text("loop") is None
    assert root.text("nul\0name") is None
    assert root.integer("binary") is None
    assert root.names("binary") == []
    assert root.target("missing") is None


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("x" * 10_000)
    assert Root(tmp_path).text("long", 100) == "x" * 100


def test_the_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Root("/").real
    monkeypatch.setenv("INFERD_SYSROOT", str(tmp_path))
    assert Root().path == str(tmp_path)
    assert not Root().real
