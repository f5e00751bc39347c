"""Where the config lies, and how it is read."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..domain.config import Config, ModelOptions, TenantLimits
from .state import state_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ConfigError(Exception):
    """The config cannot be used; the message names the file and the exact field. `text` leaves the file out."""

    def __init__(self, source: object, text: str) -> None:
        super().__init__(f"{source}: {text}")
        self.text = text


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
        raise ConfigError(path, error.strerror or "it cannot be read") from None
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, str(error)) from None
    return convert(table, str(path))


def convert(table: object, source: str) -> Config:
    """Turn parsed TOML into the Config, naming the exact path of the first wrong field."""
    try:
        return msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        field = where.strip("`").removeprefix("$").removeprefix(".") or "the top level"
        if "[...]" in field:  # msgspec does not say which key of a table it was
            field = field.replace("[...]", f".{_wrong_key(table, field)}")
        raise ConfigError(source, f"`{field}`: {what[0].lower()}{what[1:]}") from None


def _wrong_key(table: Any, field: str) -> str:
    tenants = field.startswith("tenant")
    rows = table["tenant"] if tenants else table["models"]["model"]
    for name, options in rows.items():
        try:
            msgspec.convert(options, TenantLimits if tenants else ModelOptions)
        except msgspec.ValidationError:
            return str(name)
    return "?"


def model_folders(config: Config) -> list[Path]:
    """Where models are looked for. Raises ConfigError."""
    folders = [expanded(folder, "models.folders") for folder in config.models.folders]
    return list(dict.fromkeys([*folders, pull_folder(config)]))


def pull_folder(config: Config) -> Path:
    """The config's; else the first of the folders of models, else one in the state folder. Raises ConfigError."""
    given = config.models.pull_folder or next(iter(config.models.folders), "")
    return expanded(given, "models.pull_folder") if given else state_folder() / "models"


def expanded(path: str, field: str) -> Path:
    """With a home in place of its `~`. Raises ConfigError."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError("the config", f"`{field}`: {path}: there is no such user") from None


def with_overrides(
    config: Config,
    *,
    address: str | None = None,
    models: Sequence[str] = (),
    fake: bool = False,
    fake_tokens_per_s: float | None = None,
    log_level: str | None = None,
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
    if log_level is not None:
        config = replace(config, log_level=log_level)
    return config
