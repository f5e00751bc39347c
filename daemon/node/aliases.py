"""Other names for models: kept in the state folder, and nothing but names. A real model's own name always wins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..domain.errors import Code, InferdError
from ..domain.event import Kind, Severity
from ..system.catalog import valid_name
from ..system.state import load_json, save_json

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    from .node import Node

FILE = "aliases"
MAX_ALIASES = 1024


class Aliases:
    """Shares the Node's loop. Without `open` they are forgotten with the daemon."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._models: dict[str, str] = {}
        self._folder: Path | None = None
        self._writing = asyncio.Lock()

    def open(self, folder: Path) -> None:
        """Take over what was kept; what is no alias in it is forgotten. Waits for the disk."""
        self._folder = folder
        self._models = dict(_rows(load_json(FILE, folder)))

    def real(self, name: str) -> str:
        """The model that is meant; the name itself where it is no alias."""
        if self._models and name in self._models and name not in self._node.catalog.names:
            return self._models[name]
        return name

    def by_model(self) -> dict[str, list[str]]:
        """All of them, in the order of their names."""
        found: dict[str, list[str]] = {}
        for alias, model in sorted(self._models.items()):
            found.setdefault(model, []).append(alias)
        return found

    async def set(self, alias: str, model: str) -> str:
        """Returns what it stood for, or ""; without a model it is taken away. Raises InferdError."""
        entries = await asyncio.to_thread(self._node.catalog.scan)
        async with self._writing:
            before = dict(self._models)
            was = self._change(alias, model, entries)
            if self._models != before and not await self._keep():
                self._models = before
                raise InferdError(Code.INTERNAL, "the alias cannot be kept: the state folder does not take it")
        if was != model:
            says = f"stands for {model}" if model else f"is no name any more; it stood for {was}"
            self._node.events.note(Severity.INFO, Kind.ALIAS, f"{alias} {says}", model=model or was)
        return was

    def _change(self, alias: str, model: str, known: Container[str]) -> str:
        was = self._models.get(alias, "")
        if not model:
            if not was:
                raise InferdError(Code.NOT_FOUND, f"there is no alias {alias[:128]!r}", field="alias")
            del self._models[alias]
            return was
        self._check(alias, model, known)
        self._models[alias] = model
        return was

    def _check(self, alias: str, model: str, known: Container[str]) -> None:
        if not valid_name(alias):
            text = (
                "alias must begin with a letter or digit and have lower-case letters, digits and ._- only, at most 128"
            )
            raise InferdError(Code.INVALID, f"{text}, not {alias[:128]!r}", field="alias", highest=128)
        if alias in known:
            raise InferdError(Code.INVALID, f"there is a model called {alias!r}, which keeps its name", field="alias")
        if model in self._models and model not in known:
            text = f"{model!r} is an alias itself; name what it stands for: {self._models[model]!r}"
            raise InferdError(Code.INVALID, text, field="model")
        if not valid_name(model) or model not in known:
            raise InferdError(Code.NOT_FOUND, f"there is no model {model[:128]!r}; see: inferd models", field="model")
        if alias not in self._models and len(self._models) >= MAX_ALIASES:
            text = f"there are {MAX_ALIASES} aliases, which is the most; remove one"
            raise InferdError(Code.INVALID, text, field="alias", highest=MAX_ALIASES)

    async def _keep(self) -> bool:
        return self._folder is None or await asyncio.to_thread(save_json, FILE, dict(self._models), self._folder)


def _rows(given: Any) -> list[tuple[str, str]]:
    rows = list(given.items())[:MAX_ALIASES] if isinstance(given, dict) else []
    return [row for row in rows if all(isinstance(name, str) and valid_name(name) for name in row)]
