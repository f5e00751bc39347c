"""What a worker takes, as estimated before it is there and as the kernel counts it once it has worked.

Each model is loaded at every context by the plain arithmetic. What the first of these loads took is then all that the
corrections know, and every context is loaded once more.
"""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING

from inferd.backends import kinds, process
from inferd.backends.facts import HOST, LoadPlan
from inferd.backends.messages import Finished, Ready, SamplingParams, Step, Stopped, Submit
from inferd.daemon.policy.corrections import Corrections, host_bytes, key
from inferd.daemon.system.processes import Rss, rss

from ..models.random_gguf import SHAPES, Shape, deep_enough, write_random_gguf
from .figures import Figure, Outcome
from .models import CACHE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from inferd.backends.facts import Footprint
    from inferd.backends.messages import FromWorker

    Said = asyncio.Queue[FromWorker | None]  # None when the worker is gone

FIRST_BAR, CORRECTED_BAR = 10.0, 3.0  # per cent
MIB = 1 << 20
CONTEXTS = (4096, 512, 8192)  # the corrections learn from the first
SLOTS, THREADS = 4, 2
LONG, SHORT, N_OUT = 576, 8, 4  # tokens: one prompt fills a batch, the others fill their slots
WAIT_S = 600.0

LLAMA, LARGE = SHAPES["llama-300m"], SHAPES["llama-1b"]
WINDOW = Shape("gemma3", 32_000, 1024, 16, 8, 4, 4096, 8192, sliding_window=512)


@dataclass(frozen=True, slots=True)
class Case:
    """A file of about so many bytes, and how it is loaded."""

    name: str
    shape: Shape
    quant: str
    n_bytes: int
    contexts: Sequence[int] = CONTEXTS
    changes: dict[str, object] = field(default_factory=dict)  # to the plan

    def path(self) -> Path:
        stem = f"{self.shape.arch}-{self.n_bytes // 10**6}mb-{self.quant}"
        path = CACHE / stem / f"{stem}.gguf"
        if not path.exists():
            print(f"making {path.name}", flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{os.getpid()}")
            write_random_gguf(unfinished, deep_enough(self.shape, self.quant, self.n_bytes), self.quant, stem)
            unfinished.rename(path)
        return path

    def plan(self, n_ctx: int) -> LoadPlan:
        known: dict[str, object] = {"backend": "llama", "path": str(self.path()), "n_ctx": n_ctx, "kv_cells": n_ctx}
        return LoadPlan(**(known | {"n_slots": SLOTS, "n_threads": THREADS} | self.changes))  # type: ignore[arg-type]


SMALL = Case("300 MB Q8_0", LLAMA, "q8_0", 300_000_000)
REPACKED = Case("300 MB Q4_K_M", LLAMA, "q4_k_m", 300_000_000)
CASES = (
    SMALL,
    REPACKED,
    Case("1 GB Q4_K_M", LARGE, "q4_k_m", 1_000_000_000),
    Case("300 MB Q8_0, sliding window", WINDOW, "q8_0", 300_000_000),
    replace(REPACKED, name="300 MB Q4_K_M, exact", contexts=CONTEXTS[:1], changes={"numerics": "exact"}),
    replace(REPACKED, name="300 MB Q4_K_M, not mapped", contexts=CONTEXTS[:1], changes={"use_mmap": False}),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One context of one case: its price, what both loads took, and what the corrections added for the second."""

    name: str
    n_ctx: int
    price: Footprint
    first: Rss
    second: Rss
    offset_bytes: int

    @property
    def rss_bytes(self) -> int:
        return self.price.host_anon_bytes + self.price.host_file_bytes

    @property
    def first_error(self) -> float:
        return _percent(self.rss_bytes, self.first)

    @property
    def corrected_error(self) -> float:
        return _percent(self.rss_bytes + self.offset_bytes, self.second)


def measure(*, quick: bool) -> Outcome:
    cases = [replace(case, contexts=CONTEXTS[:2]) for case in (REPACKED, CASES[3])] if quick else CASES
    rows = [row for case in cases for row in asyncio.run(_rows(case))]
    figures = [
        _worst("footprint against RSS, first load", [row.first_error for row in rows], FIRST_BAR),
        _worst("footprint against RSS, corrected by one load", [row.corrected_error for row in rows], CORRECTED_BAR),
    ]
    lines = [
        f"MiB, estimated / measured; {SLOTS} slots, batches of up to 512 rows. Errors are of RssAnon + RssFile "
        f"(estimated less measured); the corrected ones are those of a second load, when only the first load at "
        f"{CONTEXTS[0]} tokens was known. Reserved is what admission books: repacked weights once.",
        "",
        "| model | context | RssAnon | RssFile | first load | corrected | reserved |",
        "|---|---|---|---|---|---|---|",
        *map(_line, rows),
    ]
    return Outcome(figures, lines)


async def _rows(case: Case) -> list[Row]:
    facts, corrections = kinds.read_facts(case.path()), Corrections()
    plans = [case.plan(n_ctx) for n_ctx in case.contexts]
    prices = [kinds.footprint(facts, plan) for plan in plans]
    first = [await weigh(plan) for plan in plans]
    took = host_bytes(prices[0], plans[0], first[0].anon, sum(_lengths(plans[0])))
    corrections.observe(key(facts, plans[0]), HOST, prices[0].bytes_on[HOST], took)
    rows = []
    for i, plan in enumerate(plans):
        offset_bytes = corrections.offset_bytes(key(facts, plan), HOST)
        rows.append(Row(case.name, plan.n_ctx, prices[i], first[i], await weigh(plan), offset_bytes))
        print(_line(rows[-1]), flush=True)
    return rows


async def weigh(plan: LoadPlan) -> Rss:
    """What a worker of this plan takes after it has computed a full batch and an answer in every slot."""
    said: Said = asyncio.Queue()
    worker = process.worker(said.put_nowait, lambda: said.put_nowait(None), lambda _: None)
    await worker.start(plan)
    try:
        async with asyncio.timeout(WAIT_S):
            while not isinstance(ready := await _next(said), Ready):
                pass
            worker.ready()
            for submit in _work(plan, ready.n_vocab):
                worker.send(submit)
            n_left = SLOTS
            while n_left:
                message = await _next(said)
                n_left -= (
                    sum(isinstance(e, Finished | Stopped) for e in message.events) if isinstance(message, Step) else 0
                )
        assert worker.pid is not None
        size = rss(worker.pid)
        assert size is not None
        return size
    finally:
        worker.stop()
        await worker.wait()


async def _next(said: Said) -> FromWorker:
    message = await said.get()
    if message is None:
        raise RuntimeError("the worker is gone")
    return message


def _lengths(plan: LoadPlan) -> list[int]:
    return [min(LONG, plan.n_ctx - 64), *[SHORT] * (SLOTS - 1)]


def _work(plan: LoadPlan, n_vocab: int) -> list[Submit]:
    draw = random.Random(plan.n_ctx)
    prompts = [[draw.randrange(300, n_vocab - 10) for _ in range(length)] for length in _lengths(plan)]
    params = SamplingParams(max_tokens=N_OUT, ignore_eos=True)
    return [Submit(str(i), 1, prompt, len(prompt), params) for i, prompt in enumerate(prompts)]


def _percent(estimated_bytes: int, measured: Rss) -> float:
    return (estimated_bytes / (measured.anon + measured.file) - 1) * 100


def _worst(name: str, errors: Sequence[float], bar: float) -> Figure:
    off = [abs(error) for error in errors]
    return Figure(
        f"{name}, worst (median {median(off):.1f} %)", max(off), min(off), max(off), len(off), "%", bar, False
    )


def _line(row: Row) -> str:
    parts = (row.price.host_anon_bytes, row.first.anon), (row.price.host_file_bytes, row.first.file)
    anon, file = (f"{estimated / MIB:.0f} / {measured / MIB:.0f}" for estimated, measured in parts)
    errors = f"{row.first_error:+.1f} % | {row.corrected_error:+.1f} %"
    return f"| {row.name} | {row.n_ctx} | {anon} | {file} | {errors} | {row.price.bytes_on[HOST] / MIB:.0f} |"
