"""Where the config lies, and how it is read."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..domain.config import Config, ModelOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ConfigError(Exception):
    """The config cannot be used; the message names the file and the exact field."""


def find_config(explicit: Path | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file to read: the one named, else the user's, else the machine's, else None (all defaults)."""
    if explicit is not None:
        return explicit
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
    for path in (Path(home) / "inferd" / "inferd.toml", Path("/etc/inferd/inferd.toml")):
        if os.path.isfile(path):  # a home that is closed to us is no error
            return path
    return None


def load_config(path: Path | None) -> Config:
    """Read and check one TOML file. Raises ConfigError; None gives the defaults."""
    if path is None:
        return Config()
    try:
        table = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    return convert(table, str(path))


def convert(table: object, source: str) -> Config:
    """Turn parsed TOML into the Config, naming the exact path of the first wrong field."""
    try:
        return msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        field = where.strip("`").removeprefix("$").removeprefix(".") or "the top level"
        if "[...]" in field:  # msgspec does not say which key of a table it was
            field = field.replace("[...]", f".{_wrong_model(table)}")
        raise ConfigError(f"{source}: `{field}`: {what[0].lower()}{what[1:]}") from None


def _wrong_model(table: Any) -> str:
    for name, options in table["models"]["model"].items():
        try:
            msgspec.convert(options, ModelOptions)
        except msgspec.ValidationError:
            return str(name)
    return "?"


def with_overrides(
    config: Config,
    *,
    address: str | None = None,
    models: Sequence[str] = (),
    fake: bool = False,
    fake_tokens_per_s: float | None = None,
) -> Config:
    """The command line wins over the file; its model folders come before the file's."""
    replace = msgspec.structs.replace
    if address is not None:
        config = replace(config, server=replace(config.server, address=address))
    if models:
        folders = (*models, *config.models.folders)
        config = replace(config, models=replace(config.models, folders=folders))
    if fake or fake_tokens_per_s is not None:
        rate = config.fake.tokens_per_s if fake_tokens_per_s is None else fake_tokens_per_s
        config = replace(config, fake=replace(config.fake, enabled=True, tokens_per_s=rate))
    return config
