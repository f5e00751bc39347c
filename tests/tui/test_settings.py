from __future__ import annotations

from pathlib import Path

import pytest

from inferd.tui.bindings import NAMED
from inferd.tui.settings import PACES_MS, THEMES, Settings, SettingsError, check, load, path

NAMES = {binding.id: binding.key for binding in NAMED if binding.id}


def test_the_file_is_beside_the_daemons() -> None:
    assert path({"XDG_CONFIG_HOME": "/x"}) == Path("/x/inferd/top.toml")
    assert path({"HOME": "/home/me"}) == Path("/home/me/.config/inferd/top.toml")


def test_without_a_file_every_field_has_its_default(tmp_path: Path) -> None:
    assert load(tmp_path / "none.toml", NAMES) == Settings()


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "top.toml"
    file.write_text('theme = "inferd-cb"\ninterval_ms = 500\nread_only = true\n[keys]\ncancel = "ctrl+k"\n')
    assert load(file, NAMES) == Settings(theme="inferd-cb", interval_ms=500, read_only=True, keys={"cancel": "ctrl+k"})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('theme = "pink"', "theme"),
        ("interval_ms = 7", "interval_ms"),
        ('interval_ms = "fast"', "interval_ms"),
        ("colour = 1", "colour"),
        ('[keys]\nexplode = "x"', "explode"),
        ('[keys]\ncancel = "p"', "'p' to 'cancel' and to 'priority'"),
        ('[keys]\ncancel = "f5"\npriority = "f5"', "f5"),
        ('[keys]\ncancel = "?"', "'question_mark' to 'cancel'|to 'cancel'"),
        ('[keys]\ncancel = "f2, d"', "'d'"),
        ('[keys]\ncancel = "k"', "'k'"),
        ('[keys]\ncancel = "ctrl+q"', "ctrl"),
        ('[keys]\ncancel = ""', "such as"),
        ('[keys]\ncancel = "Ctrl+K"', "such as"),
        ("= 1", "top.toml"),
        ("\xff", "top.toml"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "top.toml"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(SettingsError, match=named) as caught:
        load(file, NAMES)
    assert str(file) in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path, NAMES)


def test_every_theme_and_pace_that_is_told_of_may_be_chosen() -> None:
    for theme in THEMES:
        for interval_ms in PACES_MS:
            settings = Settings(theme=theme, interval_ms=interval_ms)
            assert check(settings, NAMES, "here") is settings


def test_two_keys_may_change_places() -> None:
    check(Settings(keys={"cancel": "p", "priority": "x"}), NAMES, "here")
    check(Settings(), NAMES, "here")


def test_who_prints_once_needs_no_keys(tmp_path: Path) -> None:
    file = tmp_path / "top.toml"
    file.write_text('[keys]\nexplode = "x"\n')
    assert load(file, None).keys == {"explode": "x"}
