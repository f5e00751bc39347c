"""inferd turns one workstation into a shared inference appliance; `Client` is the way in from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .protos.aio import AsyncClient
    from .protos.client import Client
    from .protos.errors import InferdError, Unreachable

    __version__: str

__all__ = ["AsyncClient", "Client", "InferdError", "Unreachable", "__version__"]

# Worker processes import this package too, so nothing heavy may be imported before it is asked for.
_HOME = {
    "AsyncClient": "protos.aio",
    "Client": "protos.client",
    "InferdError": "protos.errors",
    "Unreachable": "protos.errors",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("inferd")
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"
