"""The parts of `gpu` that need an engine in their own process: python -m tests.bench.gpu_engine PART."""

from __future__ import annotations

import random
import sys
import time
from functools import cache
from statistics import median
from typing import TYPE_CHECKING, Any

from inferd.backends.facts import LoadPlan
from inferd.backends.llama.loading import load_generator as load
from inferd.daemon.domain.device import Device, DeviceKind
from inferd.daemon.system.hardware import survey

from ..models.random_blocks import write_random_q4_k_m
from ..models.random_gguf import Shape
from . import overhead
from .models import CACHE
from .prefix import to_submit
from .throughput import ORDINARY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEVEN = Shape("qwen2", 151_936, 3584, 28, 28, 4, 18_944, 32_768, 1_000_000.0, tied=False)
GIB = 2**30
N_SHARED = 8192


def seven(name: str = "seven") -> Path:
    path = CACHE / "seven" / f"{name}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_random_q4_k_m(path, SEVEN, name)
    return path


@cache
def gpu() -> Device:
    """The first GPU that this build of llama.cpp can use."""
    for device in survey().devices:
        if device.kind is DeviceKind.GPU and device.llama_name:
            return device
    raise RuntimeError("no GPU that this build of llama.cpp can use")


def plan_of(n_ctx: int, n_slots: int, **more: Any) -> LoadPlan:
    device = gpu()
    known: dict[str, Any] = {"n_gpu_layers": -1, "devices": (device.id,), "device_names": (device.llama_name,)}
    known |= {"n_ctx": n_ctx, "kv_cells": n_ctx, "n_slots": n_slots, "n_threads": 4}
    return LoadPlan(backend="llama", path=str(seven()), **(known | more))


def _share() -> list[str]:
    lines: list[str] = []
    engine = load(plan_of(256, 8, kv_cells=2048), lambda _: None)
    try:
        for name, params in (("greedy", overhead.GREEDY), ("top_k, top_p, temperature", overhead.SAMPLED)):
            runs = [overhead._shares(engine, params, seed) for seed in range(3)][1:]
            lines.append(
                f"- Python and sampling, 8 streams, {name}: {median(s for s, _ in runs):.3f} of a step of "
                f"{median(ms for _, ms in runs):.2f} ms."
            )
    finally:
        engine.close()
    return lines


def _gap() -> list[str]:
    """Steps of eight answers while a long prompt comes."""
    lines: list[str] = []
    engine = load(plan_of(8704, 9, kv_cells=32_768), lambda _: None)
    try:
        for seed in range(2):
            draw = random.Random(seed)
            for i in range(8):
                engine.submit(to_submit(f"{seed}-{i}", draw.choices(ORDINARY, k=64), 256))
            alone_ms = _steps_ms(engine, 100)[50:]
            engine.submit(to_submit(f"{seed}-long", draw.choices(ORDINARY, k=N_SHARED), 4))
            beside_ms = _steps_ms(engine, 100_000)
            worst, typical = max(beside_ms), median(alone_ms)
            told = f"steps of {typical:.1f} ms alone, {worst:.1f} at worst"
            lines.append(f"- a prompt of {N_SHARED} tokens beside 8 answers: {told}.")
    finally:
        engine.close()
    return lines


def _steps_ms(engine: Any, n: int) -> list[float]:
    took: list[float] = []
    while engine.busy() and len(took) < n:
        start_s = time.perf_counter()
        engine.step()
        took.append((time.perf_counter() - start_s) * 1e3)
    return took


def _parking() -> list[str]:
    """An 8k prompt computed, put into host RAM, and taken back, against computing it again."""
    lines: list[str] = []
    engine = load(plan_of(8704, 2, kv_cells=17_408, prefix_caching=True, cache_bytes=2 * GIB), lambda _: None)
    try:
        for seed in range(2):
            prompt = random.Random(seed).choices(ORDINARY, k=N_SHARED + 1)
            cold_ms = _first_token_ms(engine, prompt)
            start_s = time.perf_counter()
            engine._memory.make_room(10**9)
            out_ms = (time.perf_counter() - start_s) * 1e3
            stored = engine._memory.store.n_bytes
            back_ms = _first_token_ms(engine, prompt)
            lines.append(
                f"- park {N_SHARED} tokens: {out_ms:.0f} ms ({stored / 2**20:.0f} MiB); first token after it "
                f"{back_ms:.0f} ms, computed {cold_ms:.0f} ms."
            )
    finally:
        engine.close()
    return lines


def _first_token_ms(engine: Any, prompt: list[int]) -> float:
    engine.submit(to_submit("park", prompt, 1))
    start_s = time.perf_counter()
    while engine.busy():
        engine.step()
    return (time.perf_counter() - start_s) * 1e3


PARTS: dict[str, Callable[[], list[str]]] = {"share": _share, "gap": _gap, "parking": _parking}

if __name__ == "__main__":
    print(*PARTS[sys.argv[1]](), sep="\n", flush=True)
