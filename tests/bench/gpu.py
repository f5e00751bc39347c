"""What only a GPU shows: memory as the driver counts it, tokens/s beside llama-server, parking, energy, recovery.

Needs an NVIDIA GPU and a llama.cpp built for it (see the README); it is not among the default probes. The model
has random weights in the shape of Qwen2.5-7B at Q4_K_M.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from inferd import Client
from inferd.backends import kinds, process
from inferd.backends.messages import Finished, Ready, Step, Stopped
from inferd.daemon.system.hardware import Sensors, detect
from inferd.daemon.system.processes import rss

from . import daemon, footprint, rival
from .contenders import Contender, Room, _generate, rivals
from .figures import Outcome, of_runs, spread
from .gpu_engine import GIB, N_SHARED, PARTS, gpu, plan_of, seven
from .gpu_tools import each, on_device, until
from .throughput import ORDINARY, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.backends.facts import LoadPlan

    from .contenders import Generate

N_OUT = 128
AGENTS = Room(8, 8704)
N_OWN = 64
NO_GUESSES = 'spec_type = "none"'  # random weights in a ring of answers would flatter us


def measure(*, quick: bool) -> Outcome:
    return each((_facts, _footprints, _engine, _agents, _kill, _restart, _rooms, _streams), quick=quick)


def _facts(outcome: Outcome, quick: bool) -> None:
    device = gpu()
    sensors = Sensors(detect())
    reading = next(r for r in sensors.read()[1] if r.device_id == device.id)
    sensors.close()
    total = (device.memory_total_bytes or 0) / GIB
    outcome.lines.append(
        f"{device.id}: {device.name}, {device.llama_name}, {device.pci}, {total:.1f} GiB, {reading.power_watts} W of "
        f"{reading.power_limit_watts}, {reading.clock_mhz} MHz, {reading.temperature_celsius} C."
    )


def _engine(outcome: Outcome, quick: bool) -> None:
    """Each in a process of its own, as a worker is."""
    for part in PARTS:
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.bench.gpu_engine", part]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        outcome.lines += told.stdout.splitlines()
        if told.returncode:
            outcome.lines.append(f"**{part} failed with {told.returncode}**: {told.stderr[-2500:]}")


def _footprints(outcome: Outcome, quick: bool) -> None:
    facts, errors = kinds.read_facts(seven()), []
    for n_ctx, kv_type in ((4096, "f16"), (4096, "q8_0"), (32_768, "f16"), (32_768, "q8_0")):
        plan = plan_of(n_ctx, 4, kv_type=kv_type, n_draft=15)
        price = kinds.footprint(facts, plan)
        (pool,) = plan.devices
        seen = asyncio.run(_weigh(plan))
        errors.append((price.bytes_on[pool] / seen[0] - 1) * 100)
        outcome.lines.append(
            f"- {n_ctx} cells of {kv_type}: device {price.bytes_on[pool] / 2**20:.0f} MiB estimated, "
            f"{seen[0] / 2**20:.0f} measured ({errors[-1]:+.1f} %); host {price.bytes_on['host'] / 2**20:.0f} and "
            f"{seen[1] / 2**20:.0f} (private)."
        )
        print(outcome.lines[-1], flush=True)
    outcome.figures.append(
        of_runs("device memory, estimate against NVML, worst", [max(map(abs, errors))], "%", at_most=5)
    )


async def _weigh(plan: LoadPlan) -> tuple[int, int]:
    """Bytes on the device and private bytes on the host, after a full batch in every slot."""
    said: footprint.Said = asyncio.Queue()
    worker = process.worker(said.put_nowait, lambda: said.put_nowait(None), lambda _: None)
    await worker.start(plan)
    try:
        while not isinstance(ready := await footprint._next(said), Ready):
            pass
        worker.ready()
        for submit in footprint._work(plan, ready.n_vocab):
            worker.send(submit)
        n_left = plan.n_slots
        while n_left:
            message = await footprint._next(said)
            if isinstance(message, Step):
                n_left -= sum(isinstance(event, Finished | Stopped) for event in message.events)
        assert worker.pid is not None
        size = rss(worker.pid)
        assert size is not None
        return on_device(worker.pid), size.anon
    finally:
        worker.stop()
        await worker.wait()


def _joules() -> float:
    sensors = Sensors(detect())
    try:
        return sum(r.energy_joules or 0.0 for r in sensors.read()[1] if r.device_id == gpu().id)
    finally:
        sensors.close()


def _ours(model: Path, room: Room, layout: str = "unified") -> Contender:
    return Contender(f"inferd {layout}", partial(_opened, model, room, layout))


@contextlib.contextmanager
def _opened(model: Path, room: Room, layout: str) -> Iterator[Generate]:
    """The daemon finds GPUs some seconds after its start: nothing may be loaded before."""
    sizes = f"slots = {room.slots}\ncontext_tokens = {room.context_tokens}\nkv_cells = {room.cells}"
    with daemon.running(_config(model, f'{sizes}\nkv_layout = "{layout}"')) as one, Client(one.address) as client:
        _wait_gpu(client, model.stem)
        client.load(model.stem).wait()
        yield partial(_generate, client, model.stem)


def _streams(outcome: Outcome, quick: bool) -> None:
    """1, 8 and 32 streams, both servers loaded side by side and computing in turn."""
    room = Room(32, 512)
    model, binary = seven(), rival.binary()
    settings = [c for c in rivals(binary, model, room) if c.name in ("-kvu -ub 512 -fa on", "-no-kvu -ub 2048 -fa on")]
    sides = [*(_ours(model, room, layout) for layout in ("unified", "split")), *settings]
    runs: dict[str, dict[int, list[float]]] = {side.name: {1: [], 8: [], 32: []} for side in sides}
    for side in sides:
        with side.open() as generate:
            run(generate, 32, seed=0, n_out=8)
            for n_streams in (1, 8, 32):
                for seed in range(1, 3 if quick else 4):
                    before = _joules()
                    rate = run(generate, n_streams, seed, N_OUT)
                    runs[side.name][n_streams].append(rate)
                joules = (_joules() - before) / (n_streams * N_OUT)
                outcome.lines.append(
                    f"- `{side.name}`, {n_streams} streams: {spread(runs[side.name][n_streams])} tokens/s, "
                    f"{joules:.2f} J per output token."
                )
                print(outcome.lines[-1], flush=True)
    for n_streams, bar in ((1, 1.0), (8, 1.0), (32, 1.1)):
        ours, theirs = (max(median(runs[s.name][n_streams]) for s in part) for part in (sides[:2], sides[2:]))
        outcome.figures.append(
            of_runs(f"7B, {n_streams} streams: tokens/s against llama-server", [ours / theirs], "x", at_least=bar)
        )


def _agents(outcome: Outcome, quick: bool) -> None:
    model, binary = seven(), rival.binary()
    theirs = [c for c in rivals(binary, model, AGENTS, caches=True) if c.name in ("-kvu -ub 2048 -fa on",)]
    took: list[list[float]] = []
    for side in (_ours(model, AGENTS), *theirs):
        with side.open() as generate:
            run(generate, 8, seed=99, n_out=8)
            took.append([_wall_s(generate, seed) for seed in range(2 if quick else 3)])
        outcome.lines.append(f"- 8 agents over {N_SHARED} shared tokens, `{side.name}`: {spread(took[-1], 2)} s.")
        print(outcome.lines[-1], flush=True)
    ratio = median(took[0]) / min(map(median, took[1:]))
    outcome.figures.append(
        of_runs("8 agents over 8k shared tokens: time against llama-server", [ratio], "x", at_most=0.4)
    )


def _wall_s(generate: Any, seed: int) -> float:
    draw = random.Random(seed)
    shared = draw.choices(ORDINARY, k=N_SHARED)
    prompts = [shared + draw.choices(ORDINARY, k=N_OWN) for _ in range(8)]
    start_s = time.monotonic()
    threads = [threading.Thread(target=generate, args=(prompt, 32)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - start_s


def _restart(outcome: Outcome, quick: bool) -> None:
    """An 8k prompt before and after a restart of the daemon: its cells went to the disk and came back."""
    model = seven()
    config = _config(model, "context_tokens = 8704\nslots = 2\ncache_bytes = 2_147_483_648")
    prompt = random.Random(8).choices(ORDINARY, k=N_SHARED + 1)
    told: list[str] = []
    with tempfile.TemporaryDirectory(prefix="inferd-bench-") as home:
        for _ in range(2):
            with daemon.running(config, Path(home)) as one, Client(one.address) as client:
                _wait_gpu(client, model.stem)
                client.load(model.stem).wait()
                answer = client.generate(model.stem, prompt, max_tokens=4, temperature=0.0, ignore_eos=True)
                answer.text()
                assert answer.usage is not None
                assert answer.timings is not None
                told.append(f"{answer.usage.cached_tokens} cached, {answer.timings.ttft_ms:.0f} ms")
    outcome.lines.append(f"- {N_SHARED} tokens before and after a restart: {'; '.join(told)} to the first token.")


def _config(model: Path, more: str = "") -> str:
    return f'[models]\nfolders = ["{model.parent}"]\n[models.defaults]\nkeep_alive_s = -1\n{NO_GUESSES}\n{more}\n'


def _wait_gpu(client: Client, model: str) -> None:
    until(lambda: any(d.startswith("gpu") for d in client.plan(model).devices))


def _is_free(pid: int) -> bool:
    return on_device(pid) == 0


def _kill(outcome: Outcome, quick: bool) -> None:
    model = seven()
    with daemon.running(_config(model)) as one, Client(one.address) as client:
        _wait_gpu(client, model.stem)
        client.load(model.stem).wait()
        answer = client.generate(model.stem, random.Random(5).choices(ORDINARY, k=200), max_tokens=300, ignore_eos=True)
        n_seen, killed_s, freed_s = 0, 0.0, -1.0
        for delta in answer:
            n_seen += len(delta.tokens)
            if n_seen >= 100 and not killed_s:
                pid = next(m.pid for m in client.snapshot().models if m.name == model.stem)
                os.kill(pid, signal.SIGKILL)
                killed_s = time.monotonic()
                freed_s = until(partial(_is_free, pid), 10.0)
        outcome.lines.append(
            f"- kill -9: memory of the device free after {freed_s:.2f} s (as polled), {n_seen} tokens of 300 came, "
            f"resumed {answer.resumed}."
        )
        outcome.figures.append(of_runs("kill -9: device memory is free after", [freed_s], "s", at_most=2.0))


def _rooms(outcome: Outcome, quick: bool) -> None:
    """Two models on a budget that holds one; then a budget that holds half of one."""
    models = seven(), seven("other")
    prompt = random.Random(6).choices(ORDINARY, k=100)
    for budget in (8 * GIB, 4 * GIB):
        more = f"context_tokens = 4096\nslots = 2\n[memory]\ndevice_budget_bytes = {budget}"
        with daemon.running(_config(models[0], more)) as one, Client(one.address) as client:
            _wait_gpu(client, models[0].stem)
            for model in models:
                plan = client.plan(model.stem)
                pools = ", ".join(f"{p.pool} {p.needed_bytes >> 20} of {p.free_bytes >> 20} MiB" for p in plan.pools)
                text = client.generate(model.stem, prompt, max_tokens=16, ignore_eos=True)
                n = sum(len(delta.tokens) for delta in text)
                state = {m.name: (m.state, list(m.devices)) for m in client.snapshot().models}
                outcome.lines.append(
                    f"- budget {budget >> 30} GiB, {model.stem}: plan {plan.outcome}, {list(plan.devices)} ({pools}), "
                    f"victims {list(plan.victims)}; {n} tokens came; now {state}."
                )
