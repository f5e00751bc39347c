"""ONNX models on an NVIDIA GPU: where they run, what they take, whether they say the same, and how fast they are.

Needs a GPU and an ONNX Runtime with its provider; it is not among the default probes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import TYPE_CHECKING

import grpc
import numpy as np

from inferd import Client
from inferd.daemon.domain.device import DeviceKind
from inferd.daemon.system.hardware import survey
from inferd.daemon.system.processes import rss
from inferd.protos import oip_pb2_grpc as oip_grpc

from ..models.random_onnx import Size, decoder, encoder_graph
from . import daemon, models
from .figures import Outcome, of_runs, spread
from .gpu_tools import each, on_device, until
from .tensors import CLIENTS, OPTIONS, OUTPUT, _load, request, text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
SIZE = Size(n_layers=6, n_embd=768, n_heads=12, n_ff=3072, n_vocab=30_522)
WRITER = Size(n_layers=8, n_embd=512, n_heads=8, n_ff=2048, n_vocab=200, n_positions=1024)
BATCHES = (1, 8, 32)
LENGTH = 64
N_OUT = 200
PROMPTS = ("the small river", "a green house is not", "quiet morning of the child and a bright window", "was")
FOLDER = models.CACHE / "gpu-onnx"


def measure(*, quick: bool) -> Outcome:
    return each((_found, _encoders, _words), quick=quick)


def _found(outcome: Outcome, quick: bool) -> None:
    found = survey()
    for device in found.devices:
        if device.kind is DeviceKind.GPU:
            users = ", ".join(device.usable_by) or "nobody"
            outcome.lines.append(f"- {device.id}: {device.name}, usable by {users}, {device.onnx_provider}.")
    onnx = found.backends.onnx if found.backends else None
    outcome.lines.append(f"- ONNX Runtime {onnx and onnx.version}: {', '.join(onnx.providers if onnx else ())}.")


def _made() -> Path:
    """A float encoder, the same in int8, and a small writer; each in a folder of its own."""
    if not FOLDER.exists():
        encoder_graph(FOLDER / "floats" / "floats.onnx", SIZE, pooled=True)
        decoder(FOLDER / "writer", WRITER)
    return FOLDER


def _config(folder: Path, more: str = "") -> str:
    return f'[models]\nfolders = ["{folder}"]\n[models.defaults]\nkeep_alive_s = -1\n{more}'


def _encoders(outcome: Outcome, quick: bool) -> None:
    folder = _made()
    with daemon.running(_config(folder)) as one, Client(one.address) as client:
        until(lambda: any(d.startswith("gpu") for d in client.plan("floats").devices))
        plan = client.plan("floats")
        client.load("floats").wait()
        state = next(m for m in client.snapshot().models if m.name == "floats")
        rates = [asyncio.run(_load(one.address, "floats", LENGTH, 3.0)) for _ in range(2 if quick else 4)][1:]
        estimated = {pool.pool: pool.needed_bytes for pool in plan.pools}
        seen, size = on_device(state.pid), rss(state.pid)
        assert size is not None
        outcome.lines.append(
            f"- float encoder of 6 layers, D 768: on {list(state.devices)}, {estimated} bytes planned, {seen} on the "
            f"device as the driver counts them, {size.anon} private on the host, after calls of up to 32 rows."
        )
        (gpu,) = (name for name in estimated if name != "host")
        outcome.figures.append(
            of_runs("ONNX: device bytes planned by those taken", [estimated[gpu] / seen], "x", at_least=1.0)
        )
        worst = _difference(one.address, folder / "floats" / "floats.onnx")
        outcome.figures.append(of_runs("ONNX: worst difference from the processor's values", [worst], "", at_most=5e-3))
    bare = {n: _bare(folder / "floats" / "floats.onnx", n) for n in BATCHES}
    share = median(rates) / max(bare.values())
    shown = ", ".join(f"{n}: {rate:.0f}" for n, rate in bare.items())
    outcome.lines.append(
        f"- {CLIENTS} clients, {LENGTH} tokens: {spread(rates, 0)} requests/s; the bare session on the device by rows "
        f"of a call {shown}: {share:.2f} of its best."
    )


def _difference(address: str, path: Path) -> float:
    """The largest, of unit vectors, between an answer of the daemon and the processor's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=[CPU])
    arrays = text(LENGTH, 4, 7)
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        answer = oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request("floats", arrays, OUTPUT))
    ours = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(4, -1)
    (theirs,) = session.run([OUTPUT], arrays)
    scale = np.linalg.norm(theirs, axis=1, keepdims=True)
    return float(np.abs(ours / scale - theirs / scale).max())


def _bare(path: Path, n_rows: int) -> float:
    command = [sys.executable, "-m", "tests.bench.gpu_onnx", str(path), str(n_rows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def bare_rate(path: str, n_rows: int, seconds: float = 2.0) -> float:
    """Rows/s of the runtime alone on the device."""
    import onnxruntime

    onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(path, providers=[CUDA])
    assert session.get_providers()[0] == CUDA
    arrays = text(LENGTH, n_rows, 1)
    for _ in range(10):
        session.run([OUTPUT], arrays)
    n, start_s = 0, time.perf_counter()
    while time.perf_counter() - start_s < seconds:
        session.run([OUTPUT], arrays)
        n += n_rows
    return n / (time.perf_counter() - start_s)


def _words(outcome: Outcome, quick: bool) -> None:
    """The same model on the device and on the processor: greedy answers, alone and beside each other."""
    said: dict[str, list[list[int]]] = {}
    for where, more in (("gpu", ""), ("processor", "gpu_layers = 0\n")):
        with daemon.running(_config(_made(), more)) as one, Client(one.address) as client:
            if where == "gpu":
                until(lambda: any(d.startswith("gpu") for d in client.plan("writer").devices))
            planned = ", ".join(f"{it.pool} {it.needed_bytes >> 20}" for it in client.plan("writer").pools)
            client.load("writer").wait()
            (alone,), tpot_ms = _answers(client, PROMPTS[:1])
            together, _ = _answers(client, PROMPTS)
            said[where] = [alone, *together]
            state = next(m for m in client.snapshot().models if m.name == "writer")
            devices, size = list(state.devices), rss(state.pid)
            taken = f"{on_device(state.pid) >> 20} MiB there, {size.anon >> 20 if size else 0} on the host"
            outcome.lines.append(
                f"- a writer of 8 layers, D 512, on the {where} ({devices}): {tpot_ms:.2f} ms a token alone; "
                f"{taken}, planned {planned}."
            )
    alike = [sum(a == b for a, b in zip(*pair, strict=True)) for pair in zip(*said.values(), strict=True)]
    outcome.lines.append(f"- of {N_OUT} greedy tokens each, alone and of four at once, {alike} are the same on both.")


def _answers(client: Client, prompts: Sequence[str]) -> tuple[list[list[int]], float]:
    """(tokens of each, asked for at once, and ms a token of the first)."""

    def ask(prompt: str) -> tuple[list[int], float]:
        answer = client.generate("writer", prompt, max_tokens=N_OUT, temperature=0.0, ignore_eos=True)
        tokens = [token for delta in answer for token in delta.tokens]
        assert answer.timings is not None
        return tokens, answer.timings.tpot_ms

    with ThreadPoolExecutor(len(prompts)) as pool:
        done = list(pool.map(ask, prompts))
    return [tokens for tokens, _ in done], done[0][1]


if __name__ == "__main__":
    print(json.dumps(bare_rate(sys.argv[1], int(sys.argv[2]))))
