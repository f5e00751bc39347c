"""Two configs, the one in force and a newer one: what can be taken over at once, and what has to wait for a start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .config import Config

# What is read once: sockets and files are open by then, and lines have an order. All else is read when it is needed.
AT_START = (
    "server.address",
    "server.tcp_address",
    "server.admin_address",
    "server.tls",  # the names of the files: what is in them is read again when they are replaced
    "access",
    "server.max_message_bytes",
    "server.max_streams_per_connection",
    "scheduler.policy",
    "hub.max_pulls",
    "cache.disk_bytes",
    "cache.disk_ttl_s",
    "cache.folder",
    "jobs.folder",
    "records",
    "fake",
)


class Merged(NamedTuple):
    config: Config  # the newer one, but for what has to wait
    changed: tuple[str, ...]  # dotted names of settings, as a config file has them
    needs_restart: tuple[str, ...]


def merge(old: Config, new: Config, at_start: Iterable[str] = AT_START) -> Merged:
    """All that may change while the daemon serves is the newer one's."""
    changed: list[str] = []
    waiting: list[str] = []
    config = _merge(old, new, "", frozenset(at_start), changed, waiting)
    return Merged(config, tuple(changed), tuple(waiting))


def _merge(old: Any, new: Any, path: str, at_start: frozenset[str], changed: list[str], waiting: list[str]) -> Any:
    if path in at_start:
        waiting += differences(old, new, path)
        return old
    if path and not any(name.startswith(f"{path}.") for name in at_start):
        changed += differences(old, new, path)
        return new
    inside = {}
    for field in msgspec.structs.fields(new):
        name, where = field.name, _join(path, field.encode_name)
        inside[name] = _merge(getattr(old, name), getattr(new, name), where, at_start, changed, waiting)
    return msgspec.structs.replace(new, **inside)


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Dotted names of the settings in which two configs, or parts of them, differ."""
    if isinstance(new, msgspec.Struct):
        for field in msgspec.structs.fields(new):
            yield from differences(getattr(old, field.name), getattr(new, field.name), _join(path, field.encode_name))
    elif isinstance(new, dict) and any(isinstance(it, msgspec.Struct) for it in (*old.values(), *new.values())):
        for key in {**old, **new}:
            nothing = type(new[key] if key in new else old[key])()
            yield from differences(old.get(key, nothing), new.get(key, nothing), _join(path, key))
    elif old != new:
        yield path


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
