"""Thousands of damaged model files through a real daemon's way to load them: it answers each, and lives."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from inferd import InferdError
from inferd.protos import oip_pb2, oip_pb2_grpc
from inferd.protos.errors import from_rpc
from inferd.tests.e2e.daemons import ask

from ..bench.figures import Outcome, of_runs, percentile
from ..models.random_gguf import SHAPES, write_random_gguf
from ..models.random_onnx import affine
from .house import daemon, exceptions
from .mutants import known_ggufs, mutate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.tests.e2e.daemons import Daemon

DEMO = Path(__file__).parents[2] / "backends" / "llama" / "demo.gguf"
LIMIT_S = 30.0  # then it is given up, and counts as not answered
BAR_S = 5.0
N_AT_ONCE = 2
CONFIG = """
[models.defaults]
slots = 1
context_tokens = 256
threads = 1
keep_alive_s = -1
[cache]
disk_bytes = 0
"""
HONEST = {"model_corrupt", "model_failed", "unsupported", "no_room", "worker_crashed", "invalid", "not_found"}


@dataclass(slots=True)
class Tally:
    """What became of all of them."""

    times_s: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)  # what was answered otherwise than it should be


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    suffix: str
    what: str
    data: bytes


def mutants(n: int, rng: random.Random, gguf: bytes, onnx: bytes) -> Iterator[Mutant]:
    """Known ones first; of ten others seven of a small GGUF, one of the demo model, and two of a graph."""
    known = list(known_ggufs(gguf).items())
    demo = DEMO.read_bytes()
    for i in range(n):
        if i < len(known):
            yield Mutant(f"known-{i}", ".gguf", *known[i])
        elif i % 10 < 7:
            yield Mutant(f"small-{i}", ".gguf", *mutate(rng, gguf, 40_000))
        elif i % 10 < 8:
            yield Mutant(f"demo-{i}", ".gguf", *mutate(rng, demo, 60_000))
        else:
            yield Mutant(f"graph-{i}", ".onnx", *mutate(rng, onnx, len(onnx)))


def measure(*, quick: bool, seed: int) -> Outcome:
    n = 60 if quick else 2000
    rng = random.Random(f"{seed} files")
    tally = Tally()
    with TemporaryDirectory(prefix="inferd-chaos-") as folder, daemon(CONFIG) as (one, _):
        gguf = write_random_gguf(Path(folder) / "m.gguf", SHAPES["tiny"], "q8_0").read_bytes()
        onnx = affine(Path(folder) / "m.onnx").read_bytes()
        for name, suffix, data in (("sound", ".gguf", gguf), ("graph", ".onnx", onnx)):  # else nothing would be tested
            assert try_one(one, Mutant(name, suffix, "sound", data), Tally()) == "served"
        before_bytes = one.rss_bytes()
        with ThreadPoolExecutor(N_AT_ONCE) as pool:
            for _ in pool.map(lambda mutant: try_one(one, mutant, tally), mutants(n, rng, gguf, onnx)):
                pass
        grown = one.rss_bytes() - before_bytes
        died, logged = one.process.poll() is not None, exceptions(one)
    title = f"{n} damaged files"
    slowest_s = max(tally.times_s)
    ends = ", ".join(f"{end} {count}" for end, count in tally.ends.most_common())
    return Outcome(
        [
            of_runs(f"{title}: the daemon died", [died], "", at_most=0),
            of_runs(f"{title}: exceptions in its log", [logged], "", at_most=0),
            of_runs(f"{title}: answered otherwise than with a failure of the model", [len(tally.wrong)], "", at_most=0),
            of_runs(f"{title}: until it was answered, longest", [slowest_s], "s", at_most=BAR_S),
            of_runs(f"{title}: growth of the daemon", [grown / 2**20], "MiB", at_most=100),
        ],
        [
            f"- {n} files: {ends}.",
            f"- answered after p50 {percentile(tally.times_s, 0.5):.2f}, p99 {percentile(tally.times_s, 0.99):.2f} s.",
            *(f"  - WRONG {one}" for one in tally.wrong[:20]),
        ],
    )


def try_one(one: Daemon, mutant: Mutant, tally: Tally) -> str:
    """Ask something of it by its name; then it goes."""
    path = one.log.parent / "models" / f"{mutant.name}{mutant.suffix}"
    path.write_bytes(mutant.data)
    start_s = time.monotonic()
    try:
        (generate if mutant.suffix == ".gguf" else infer)(one, mutant.name)
        end = "served"
    except InferdError as error:
        end = error.code
        if end not in HONEST or str(one.log.parent) in error.message:
            tally.wrong.append(f"{mutant.name} ({mutant.what}): {end}: {error.message}")
    tally.times_s.append(time.monotonic() - start_s)
    tally.ends[end] += 1
    with contextlib.suppress(InferdError):
        one.client.unload(mutant.name, force=True)
    path.unlink()
    return end


def generate(one: Daemon, name: str) -> None:
    """Some tokens. Raises InferdError."""
    try:
        list(one.inference.Generate(ask("abc", name, max_tokens=4), timeout=LIMIT_S))
    except grpc.RpcError as error:
        raise from_rpc(error, one.address) from None


def infer(one: Daemon, name: str) -> None:
    """One row through the graph. Raises InferdError."""
    request = oip_pb2.ModelInferRequest(model_name=name)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(np.ones(4, np.float32).tobytes())
    stub: Any = oip_pb2_grpc.GRPCInferenceServiceStub(one.channel)
    try:
        stub.ModelInfer(request, timeout=LIMIT_S)
    except grpc.RpcError as error:
        raise from_rpc(error, one.address) from None
