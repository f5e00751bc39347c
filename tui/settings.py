"""What a user has chosen: on the command line, in the environment, or in `$XDG_CONFIG_HOME/inferd/top.toml`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

PACES_MS = (250, 500, 1000, 2000)  # between two snapshots
TAKEN = frozenset({"ctrl+c", "ctrl+p", "ctrl+q", "tab", "shift+tab"})  # by the library of the screens
KEY = re.compile(r"((ctrl|alt|shift)\+)*([a-z0-9]|f[1-9][0-9]?|[a-z]+(_[a-z]+)*)")
LONG = {
    "?": "question_mark", "/": "slash", ":": "colon", "+": "plus", "-": "minus", "=": "equals_sign", " ": "space",
    ",": "comma", ".": "full_stop", "*": "asterisk", "#": "number_sign",
}  # fmt: skip
THEMES = ("inferd", "inferd-light", "inferd-cb", "ansi-dark", "ansi-light")


class SettingsError(Exception):
    """A sentence for the user, with the file and the field."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every field has a default. `keys`: name of a key, as `?` shows it -> the key that it should have."""

    theme: str = ""
    interval_ms: int = 1000
    ascii: bool = False
    read_only: bool = False
    keys: dict[str, str] = {}


def path(environ: Mapping[str, str] = os.environ) -> Path:
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".config")
    return Path(home) / "inferd" / "top.toml"


def load(file: Path, names: Mapping[str, str] | None) -> Settings:
    """The file's settings; the defaults where there is none. Raises SettingsError."""
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from None
    try:
        settings = msgspec.toml.decode(raw, type=Settings)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: {error}") from None
    return check(settings, names, str(file))


def check(settings: Settings, names: Mapping[str, str] | None, where: str) -> Settings:
    """Raises SettingsError naming the field and what it may be. `names`: of keys -> those that they have at first."""
    if settings.theme and settings.theme not in THEMES:
        raise SettingsError(f"{where}: `theme` must be one of {', '.join(THEMES)}, not {settings.theme!r}")
    if settings.interval_ms not in PACES_MS:
        paces = ", ".join(map(str, PACES_MS))
        raise SettingsError(f"{where}: `interval_ms` must be one of {paces}, not {settings.interval_ms}")
    if names is not None:
        check_keys(settings.keys, names, where)
    return settings


def check_keys(keys: Mapping[str, str], names: Mapping[str, str], where: str) -> None:
    """One key has one meaning, and is a key."""
    for name, given in keys.items():
        if name not in names:
            raise SettingsError(f"{where}: `keys` has no {name!r}; there are {', '.join(sorted(names))}")
        for key in keys_of(given):
            if key in TAKEN or not (len(key) == 1 or KEY.fullmatch(key)):
                raise SettingsError(
                    f"{where}: `keys` cannot give {key!r} to {name!r}; such as: x, X, ctrl+x, f5, space"
                )
    owners: dict[str, str] = {}
    for name, first in names.items():
        for key in keys_of(keys.get(name, first)):
            other = owners.setdefault(key, name)
            if other != name and (name in keys or other in keys):
                raise SettingsError(f"{where}: `keys` gives {key!r} to {other!r} and to {name!r}")


def keys_of(text: str) -> list[str]:
    """As the library of the screens calls them."""
    parts = [text] if text == "," else [part.strip() or part for part in text.split(",")]
    return [LONG.get(part, part) for part in parts]
