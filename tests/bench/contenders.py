"""The two servers of the throughput probe in all their settings, each as a way to have one prompt answered."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from inferd import Client

from . import daemon, rival

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    Generate = Callable[[list[int], int], float]  # (prompt, tokens to make) -> when the answer was complete

SLOTS = 8
CELLS = SLOTS * 256
THREADS = 2


@dataclass(frozen=True, slots=True)
class Contender:
    """A server with its settings; loaded as long as `open()` is."""

    name: str
    open: Callable[[], AbstractContextManager[Generate]]


def inferds(model: Path) -> list[Contender]:
    """All defaults but for what both must have alike; the KV layout is the operator's choice per model."""
    return [Contender(f"kv_layout = {layout}", partial(_inferd, model, layout)) for layout in ("unified", "split")]


def rivals(binary: Path, model: Path) -> list[Contender]:
    return [Contender(str(settings), partial(_rival, binary, model, settings)) for settings in rival.SWEEP]


@contextlib.contextmanager
def _inferd(model: Path, kv_layout: str) -> Iterator[Generate]:
    config = f"""
[models]
folders = ["{model.parent}"]
[models.defaults]
slots = {SLOTS}
context_tokens = {CELLS // SLOTS}
kv_cells = {CELLS}
threads = {THREADS}
kv_layout = "{kv_layout}"
keep_alive_s = -1
"""
    with daemon.running(config) as one, Client(one.address) as client:
        client.load(model.stem).wait()
        yield partial(_generate, client, model.stem)


def _generate(client: Client, model: str, prompt: list[int], n_tokens: int) -> float:
    n_seen = 0
    for delta in client.generate(model, prompt, max_tokens=n_tokens, temperature=0.0, ignore_eos=True):
        n_seen += len(delta.tokens)
    if n_seen != n_tokens:
        raise RuntimeError(f"inferd sent {n_seen} tokens, not {n_tokens}")
    return time.monotonic()


@contextlib.contextmanager
def _rival(binary: Path, model: Path, settings: rival.Settings) -> Iterator[Generate]:
    with rival.running(binary, model, settings, slots=SLOTS, cells=CELLS, threads=THREADS) as server:
        yield partial(rival.generate, server)
