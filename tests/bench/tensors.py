"""Tensors through the Open Inference Protocol against the bare session: shared calls, one small request, large ones."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from inferd.protos import oip_pb2 as oip
from inferd.protos import oip_pb2_grpc as oip_grpc

from . import daemon, models
from .figures import Figure, Outcome, of_runs, percentile, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = (384, 768)  # of a hidden state: MiniLM's and DistilBERT's
LENGTHS = (16, 64, 128)
BATCHES = (1, 2, 4, 8, 16, 32)
CLIENTS = 32
FLOOR_S = 3.0
SHARE, LOOP_SHARE = 0.9, 0.9
ADDED_MS = 1.5
LARGE_BYTES, LARGE_MB_S = 16 * 10**6, 400.0
OPTIONS = [
    ("grpc.default_authority", "localhost"),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
KEEPS = "glibc.malloc.mmap_threshold=268435456:glibc.malloc.trim_threshold=268435456"
OUTPUT = "sentence_embedding"


def measure(*, quick: bool) -> Outcome:
    outcome = Outcome([])
    rounds, seconds = (2, 1.0) if quick else (5, 3.0)
    for n_embd in SIZES:
        encoder = models.int8_encoder(n_embd)
        with daemon.running(_config(encoder.parent)) as one:
            _throughput(outcome, one.address, encoder, rounds, seconds)
            if n_embd == SIZES[-1]:
                _added(outcome, one.address, encoder.parent / "affine.onnx", 200 if quick else 1000)
                _floor(outcome)
                _large(outcome, one.address, 10 if quick else 40)
    return outcome


def _config(folder: Path) -> str:
    return f'[models]\nfolders = ["{folder}"]\n[models.defaults]\nkeep_alive_s = -1\n'


# shared calls


def _throughput(outcome: Outcome, address: str, encoder: Path, rounds: int, seconds: float) -> None:
    """In turn, so that both sides see the same machine: the bare session at each batch size, then the daemon."""
    name = encoder.stem
    for length in LENGTHS:
        bare: dict[int, list[float]] = {}
        ours: list[float] = []
        asyncio.run(_load(address, name, length, max(2.0, seconds)))  # it learns which calls are good
        for _ in range(rounds):
            for n_rows, per_s in bare_rates(encoder, length, seconds / 3).items():
                bare.setdefault(n_rows, []).append(per_s)
            ours.append(asyncio.run(_load(address, name, length, seconds)))
        best = max(bare, key=lambda n: statistics.median(bare[n]))
        of_best = [mine / theirs for mine, theirs in zip(ours, bare[best], strict=True)]
        of_loop = [mine / theirs for mine, theirs in zip(ours, bare[1], strict=True)]
        outcome.figures += [
            of_runs(
                f"int8 {name}, {length} tokens, {CLIENTS} clients: of the bare session's best",
                of_best,
                "x",
                at_least=SHARE,
            ),
            of_runs(f"the same ({name}, {length}): of a plain loop", of_loop, "x", at_least=LOOP_SHARE),
        ]
        shown = ", ".join(f"{n}: {spread(values, 0)}" for n, values in bare.items())
        outcome.lines.append(
            f"{name}, {length} tokens: {spread(ours, 0)} requests/s; the bare session by rows of a call {shown}."
        )


def bare_rates(path: Path, length: int, seconds: float) -> dict[int, float]:
    """Rows/s of the runtime alone, in a process of its own with the daemon's number of threads."""
    command = [sys.executable, "-m", "tests.bench.tensors", str(path), str(length), str(seconds)]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {int(n): per_s for n, per_s in json.loads(found.splitlines()[-1]).items()}


def text(length: int, n_rows: int, seed: int) -> dict[str, Any]:
    ids = np.random.default_rng(seed).integers(4, 1000, (n_rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def request(model: str, arrays: dict[str, Any], *outputs: str) -> oip.ModelInferRequest:
    wire = oip.ModelInferRequest(model_name=model)
    for name in outputs:
        wire.outputs.add(name=name)
    for name, array in arrays.items():
        datatype = {"int64": "INT64", "float32": "FP32"}[str(array.dtype)]
        wire.inputs.add(name=name, datatype=datatype, shape=array.shape)
        wire.raw_input_contents.append(array.tobytes())
    return wire


async def _load(address: str, model: str, length: int, seconds: float) -> float:
    """Requests/s of so many clients, each with one text at a time."""
    n_done = 0
    asked = [request(model, text(length, 1, seed), OUTPUT) for seed in range(CLIENTS)]
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        stub = oip_grpc.GRPCInferenceServiceStub(channel)
        await stub.ModelInfer(asked[0], wait_for_ready=True)
        end_s = time.perf_counter() + seconds

        async def client(wire: oip.ModelInferRequest) -> None:
            nonlocal n_done
            while time.perf_counter() < end_s:
                await stub.ModelInfer(wire)
                n_done += 1

        start_s = time.perf_counter()
        await asyncio.gather(*map(client, asked))
        return n_done / (time.perf_counter() - start_s)


def _floor(outcome: Outcome) -> None:
    """The same clients with a server that does nothing: what is left of the cores for computing."""
    with tempfile.TemporaryDirectory(prefix="inferd-bench-") as folder:
        address = f"unix:{folder}/s"
        server = subprocess.Popen([sys.executable, "-m", "tests.bench.tensors", "nothing", address])
        try:
            asyncio.run(_load(address, "nothing", LENGTHS[0], 1.0))
            before_s = _cpu_s(server.pid), sum(os.times()[:2])
            per_s = asyncio.run(_load(address, "nothing", LENGTHS[0], FLOOR_S))
            after_s = _cpu_s(server.pid), sum(os.times()[:2])
        finally:
            server.kill()
            server.wait()
    theirs, ours = ((b - a) / (per_s * FLOOR_S) * 1e3 for a, b in zip(before_s, after_s, strict=True))
    outcome.lines.append(
        f"gRPC alone, by a server that does nothing: {per_s:.0f} requests/s; server and clients take {theirs:.2f} + "
        f"{ours:.2f} ms of a core for each, on the cores that compute."
    )


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def do_nothing(address: str) -> None:
    """Answer every request with as many bytes as a small vector has."""

    class Nothing(oip_grpc.GRPCInferenceServiceServicer):
        async def ModelInfer(self, request: oip.ModelInferRequest, context: Any) -> oip.ModelInferResponse:
            answer = oip.ModelInferResponse(model_name=request.model_name, raw_output_contents=[bytes(1536)])
            answer.outputs.add(name=OUTPUT, datatype="FP32", shape=[1, 384])
            return answer

    server = grpc.aio.server(options=[("grpc.http2.bdp_probe", 0)])
    oip_grpc.add_GRPCInferenceServiceServicer_to_server(Nothing(), server)  # type: ignore[abstract]
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


# one request


def _added(outcome: Outcome, address: str, path: Path, n: int) -> None:
    """A small graph through the daemon, with a stock synchronous client, and in a session beside it."""
    x = np.ones((1, 4), np.float32)
    wire = request("affine", {"x": x})
    session = _session(path, 1)
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        stub = oip_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(50):
            stub.ModelInfer(wire)
        seen, own = [], []
        for _ in range(n):
            seen.append(_timed_ms(lambda: stub.ModelInfer(wire)))
            own.append(_timed_ms(lambda: session.run(None, {"x": x})))
    added = [a - b for a, b in zip(seen, own, strict=True)]
    p50, p99 = percentile(added, 0.5), percentile(added, 0.99)
    outcome.figures.append(
        Figure("what inferd adds to one small ModelInfer, p50", p50, min(added), p99, n, "ms", ADDED_MS, False)
    )
    outcome.lines.append(
        f"One small request: {percentile(seen, 0.5):.2f} ms, of which the session {percentile(own, 0.5):.3f}."
    )


def _timed_ms(call: Any) -> float:
    start_s = time.perf_counter()
    call()
    return (time.perf_counter() - start_s) * 1e3


# large ones


def _large(outcome: Outcome, address: str, n: int) -> None:
    """By two clients of one kind: as it comes, and with a C library that keeps what it has freed, as the daemon's does.

    The first one spends half of its time on new pages, in every other run.
    """
    kept_ms, stock_ms = (_client_ms(address, n, tunables) for tunables in (KEEPS, ""))
    rates = [2 * LARGE_BYTES / 1e6 / (ms / 1e3) for ms in kept_ms]
    name = "16 MB of tensors in and 16 MB out of one call: both together"
    outcome.figures.append(of_runs(name, rates, "MB/s", at_least=LARGE_MB_S))
    outcome.lines.append(
        f"16 MB in and out: {spread(kept_ms)} ms a call; {spread(stock_ms)} by one whose C library gives freed memory "
        f"back at once ({2 * LARGE_BYTES / 1e3 / statistics.median(stock_ms):.0f} MB/s)."
    )


def _client_ms(address: str, n: int, tunables: str) -> list[float]:
    command = [sys.executable, "-m", "tests.bench.tensors", "large", address, str(n)]
    environment = {**os.environ, "GLIBC_TUNABLES": tunables}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return [float(ms) for ms in json.loads(done.stdout.splitlines()[-1])]


def large_ms(address: str, n: int) -> list[float]:
    """Each call of a stock client that sends 16 MB and gets them back."""
    wire = request("echo", {"x": np.ones(LARGE_BYTES // 4, np.float32)})
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        stub = oip_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(5):
            stub.ModelInfer(wire)
        return [_timed_ms(lambda: stub.ModelInfer(wire)) for _ in range(n)]


# the bare session


def _session(path: Path, n_threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def main(arguments: Sequence[str]) -> None:
    """In a process of its own: prints what was asked for as JSON."""
    if arguments[0] == "nothing":
        return asyncio.run(do_nothing(arguments[1]))
    if arguments[0] == "large":
        return print(json.dumps(large_ms(arguments[1], int(arguments[2]))))
    path, length, seconds = Path(arguments[0]), int(arguments[1]), float(arguments[2])
    session = _session(path, len(os.sched_getaffinity(0)))
    rates = {}
    for n_rows in BATCHES:
        feeds = text(length, n_rows, 0)
        for _ in range(2):
            session.run([OUTPUT], feeds)
        start_s, n = time.perf_counter(), 0
        while time.perf_counter() - start_s < seconds:
            session.run([OUTPUT], feeds)
            n += n_rows
        rates[n_rows] = n / (time.perf_counter() - start_s)
    return print(json.dumps(rates))


if __name__ == "__main__":
    main(sys.argv[1:])
