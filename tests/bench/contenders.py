"""The two servers in all their settings, each as a way to have one prompt answered."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from inferd import Client

from . import daemon, rival

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path


class Generate(Protocol):
    """Have one prompt answered."""

    def __call__(self, prompt: list[int], n_tokens: int, *, on_token: Callable[[], object] | None = None) -> float:
        """When the answer was complete; `on_token` is called as each token comes."""


THREADS = 2


@dataclass(frozen=True, slots=True)
class Room:
    """What both have alike."""

    slots: int
    context_tokens: int  # of one request

    @property
    def cells(self) -> int:
        return self.slots * self.context_tokens


@dataclass(frozen=True, slots=True)
class Contender:
    """A server with its settings; loaded as long as `open()` is."""

    name: str
    open: Callable[[], AbstractContextManager[Generate]]


def inferds(model: Path, room: Room) -> list[Contender]:
    """All defaults but for what both must have alike; the KV layout is the operator's choice per model."""
    return [inferd(model, room, layout) for layout in ("unified", "split")]


def inferd(model: Path, room: Room, kv_layout: str = "unified", option: str = "", more: str = "") -> Contender:
    """`option`: one more line for the model; `more`: for the config."""
    name = ", ".join(filter(None, (f"kv_layout = {kv_layout}", option)))
    return Contender(name, partial(_inferd, model, room, kv_layout, option, more))


def rivals(binary: Path, model: Path, room: Room, *, caches: bool = False) -> list[Contender]:
    """With `caches` each may use what it computed before."""
    return [
        Contender(str(settings), partial(_rival, binary, model, room, settings, caches=caches))
        for settings in rival.SWEEP
    ]


def promising(looked: Mapping[Contender, float], factor: float = 1.5) -> list[Contender]:
    """Of settings that were looked at once, those that may be the best: some take minutes, and never are."""
    least = min(looked.values())
    return [contender for contender, value in looked.items() if value <= factor * least]


@contextlib.contextmanager
def _inferd(model: Path, room: Room, kv_layout: str, option: str, more: str) -> Iterator[Generate]:
    config = f"""
[models]
folders = ["{model.parent}"]
[models.defaults]
slots = {room.slots}
context_tokens = {room.context_tokens}
kv_cells = {room.cells}
threads = {THREADS}
kv_layout = "{kv_layout}"
keep_alive_s = -1
{option}
{more}
"""
    with daemon.running(config) as one, Client(one.address) as client:
        client.load(model.stem).wait()
        yield partial(_generate, client, model.stem)


def _generate(
    client: Client, model: str, prompt: list[int], n_tokens: int, *, on_token: Callable[[], object] | None = None
) -> float:
    n_seen = 0
    for delta in client.generate(model, prompt, max_tokens=n_tokens, temperature=0.0, ignore_eos=True):
        n_seen += len(delta.tokens)
        if on_token is not None and delta.tokens:
            on_token()
    if n_seen != n_tokens:
        raise RuntimeError(f"inferd sent {n_seen} tokens, not {n_tokens}")
    return time.monotonic()


@contextlib.contextmanager
def _rival(binary: Path, model: Path, room: Room, settings: rival.Settings, *, caches: bool) -> Iterator[Generate]:
    with rival.running(binary, model, settings, slots=room.slots, cells=room.cells, threads=THREADS) as server:
        yield partial(rival.generate, server, caches=caches)
