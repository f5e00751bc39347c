"""What the scheduler promises, measured on recorded traces: in virtual time, and against a daemon on the fake engine.

The traces are read from the folder in INFERD_BENCH_TRACES, else from ../shared/traces beside the repository.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from inferd.daemon.domain.config import ClassOptions, Config, Turns
from inferd.daemon.domain.request import Priority
from inferd.daemon.replay.arrivals import Arrival, Shape, read_trace, shaped
from inferd.daemon.replay.engine import Costs
from inferd.daemon.replay.fleet import Machine
from inferd.daemon.replay.live import play
from inferd.daemon.replay.replay import replay
from inferd.daemon.replay.report import Report, Result, percentile, report

from . import daemon, models
from .figures import Figure, Outcome, of_runs, spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHAT, NORMAL, BATCH = Priority.INTERACTIVE, Priority.NORMAL, Priority.BATCH
TRACES = Path(os.environ.get("INFERD_BENCH_TRACES") or Path(__file__).parents[2] / ".." / "shared" / "traces")
CONTEXT_TOKENS = 16_384

# The spike of the code trace: 411 requests in the worst 10 s.
SPIKE = Shape(from_s=840.0, to_s=930.0, classes={CHAT: 0.2, BATCH: 0.8})
OVERLOAD = 10.0
TARGETS_S = {CHAT: 5.0, BATCH: 30.0}
CHAT_TARGET_MS = TARGETS_S[CHAT] * 1e3
REFUSAL_BAR_MS = 50.0

# 27 clients offer 640 output tokens/s for 600 s: what 8 streams at 80 tokens/s give.
VTC_COSTS = Costs(prefill_tokens_per_s=3000.0, decode_tokens_per_s=80.0)
DEADLINE_MS = 20_000
N_ETA = 300

# Small enough for one client process, and fast enough to be run five times.
TWIN = Shape(to_s=200.0, speed=10.0, max_output_tokens=100, classes={CHAT: 0.3, NORMAL: 0.3, BATCH: 0.4})
TWIN_MACHINE = Machine(Costs(3000.0, 200.0), slots=8, context_tokens=CONTEXT_TOKENS)


def measure(*, quick: bool) -> Outcome:
    if not TRACES.is_dir():
        return Outcome([], [f"No traces in {TRACES}: name their folder in INFERD_BENCH_TRACES."])
    outcome = Outcome([])
    for part in (fairness, shares, eta, deadlines, same, spike, twin):
        part(outcome, quick=quick)
    return outcome


# in virtual time


def fairness(outcome: Outcome, *, quick: bool) -> None:
    """The service gap of 27 tenants at 2.7 times the capacity, over the theorem's bound."""
    arrivals, machine = vtc(Shape()), Machine(Costs(3000.0, 30.0))
    gaps = {}
    for policy in ("fair", "fifo"):
        found = report(replay(arrivals, machine, config(policy)))
        gaps[policy] = found.gap_tokens / found.gap_bound_tokens
        outcome.lines.append(
            f"- VTC trace, {policy}: gap {found.gap_tokens:,.0f} of {found.gap_bound_tokens:,.0f} weighted tokens, "
            f"Jain {found.total.jain:.3f} at the end of arrivals."
        )
    outcome.figures += [
        of_runs("service gap over VTC's bound, 27 tenants", [gaps["fair"]], "x", at_most=1.0),
        of_runs("the same first come, first served (violates it)", [gaps["fifo"]], "x", at_least=1.0),
    ]


def shares(outcome: Outcome, *, quick: bool) -> None:
    """Two tenants that offer 10:1; then the smaller one asks for less than its half."""
    machine = Machine(Costs(2000.0, 50.0), slots=4)  # some 3.7 of these requests a second
    both = served(poisson({"a": 40.0, "b": 4.0}, 120.0), machine)
    little = served(poisson({"a": 40.0, "b": 0.4}, 120.0), machine)
    alone = served(poisson({"a": 40.0}, 120.0), machine)
    ratio, given = both["a"] / both["b"], (little["a"] + little["b"]) / alone["a"]
    outcome.figures += [
        of_runs("two tenants offering 10:1, served", [ratio], "x", at_least=0.9),
        of_runs("the same, from above", [ratio], "x", at_most=1.1),
        of_runs("idle share given away (throughput over that of one tenant alone)", [given], "x", at_least=0.95),
    ]


def eta(outcome: Outcome, *, quick: bool) -> None:
    """How many of the first requests that were told an 80 % interval got their first token in it."""
    result = replay(vtc(Shape()), Machine(VTC_COSTS), config())
    covered = coverage(result)
    everybody = report(result)
    outcome.figures += [
        of_runs(f"ETA's 80 % interval covers, first {N_ETA} told", [covered], "", at_least=0.70),
        of_runs("the same, from above", [covered], "", at_most=0.90),
    ]
    outcome.lines.append(f"- ETA of all {everybody.eta_told} that were told one: {everybody.eta_covered:.0%} covered.")


def deadlines(outcome: Outcome, *, quick: bool) -> None:
    """Of the requests that were let in, how many missed their deadline."""
    for overload in (3.0, 10.0):
        shape = Shape(speed=overload, deadlines_ms={CHAT: DEADLINE_MS})
        total = report(replay(vtc(shape), Machine(VTC_COSTS), config())).total
        missed = total.missed / (total.requests - total.refused)
        title = f"deadlines of {DEADLINE_MS / 1e3:g} s at {overload:g}x overload, admitted that missed"
        outcome.figures.append(of_runs(title, [missed], "", at_most=0.05))
        outcome.lines.append(f"- {overload:g}x: {total.done} done, {total.missed} missed, {total.refused} refused.")


def same(outcome: Outcome, *, quick: bool) -> None:
    runs = [replay(azure(SPIKE), spike_machine(), config(limits_s=TARGETS_S)).decisions for _ in range(2)]
    outcome.figures.append(
        of_runs(f"same trace twice: identical decisions ({len(runs[0])})", [runs[0] == runs[1]], "", at_least=1)
    )


# in virtual time and on the fake engine


def spike(outcome: Outcome, *, quick: bool) -> None:
    """The code trace around its spike, whose worst 10 s offer ten times the capacity."""
    arrivals = azure(SPIKE)
    virtual = {
        "fair": replay(arrivals, spike_machine(), config(limits_s=TARGETS_S)),
        "fifo": replay(arrivals, spike_machine(), config("fifo")),
    }
    _judge_spike(outcome, "virtual", virtual)
    limits = "\n".join(
        f"[scheduler.{priority.value}]\nfirst_token_limit_s = {limit_s}" for priority, limit_s in TARGETS_S.items()
    )
    live = {"fair": on_daemon(arrivals, spike_machine(), limits)[0]}
    live["fifo"] = virtual["fifo"] if quick else on_daemon(arrivals, spike_machine(), '[scheduler]\npolicy = "fifo"')[0]
    _judge_spike(outcome, "fake engine", live)
    refusals_ms = [o.end_ms for o in live["fair"].outcomes if o.refused and o.end_ms is not None]
    p99 = percentile(refusals_ms, 0.99) or 0.0
    title = "a refusal at the spike, as its client sees it, p99"
    outcome.figures.append(
        Figure(title, p99, min(refusals_ms), max(refusals_ms), len(refusals_ms), "ms", REFUSAL_BAR_MS, False)
    )


def _judge_spike(outcome: Outcome, where: str, runs: Mapping[str, Result]) -> None:
    fair, fifo = (report(runs[policy], TARGETS_S) for policy in ("fair", "fifo"))
    chat, batch = fair.classes
    ratio = fair.total.goodput_per_s / fifo.total.goodput_per_s
    n_lost = fair.total.lost + fair.total.failed
    title = f"spike at {OVERLOAD:g}x, {where}"
    outcome.figures += [
        of_runs(f"{title}: interactive TTFT p95", [chat.ttft_ms.p95 or 0.0], "ms", at_most=CHAT_TARGET_MS),
        of_runs(f"{title}: goodput over FIFO's", [ratio], "x", at_least=2.0),
        of_runs(f"{title}: batch requests shed", [batch.refused], "", at_least=1.0),
        of_runs(f"{title}: refused without RetryInfo", [fair.without_retry], "", at_most=0.0),
        of_runs(f"{title}: lost", [n_lost], "", at_most=0.0),
    ]
    outcome.lines += [
        f"- Spike, {where}, {policy}: {in_words(found)}" for policy, found in (("fair", fair), ("fifo", fifo))
    ]


def twin(outcome: Outcome, *, quick: bool) -> None:
    """P95 of a replay against P95 of a live run of the same arrivals."""
    arrivals = vtc(TWIN)
    expected = report(replay(arrivals, TWIN_MACHINE, config()))
    results = on_daemon(arrivals, TWIN_MACHINE, "", n_runs=2 if quick else 5)
    found = [report(result) for result in results]
    for name, pick in (("TTFT", _ttft_p95), ("E2EL", _e2el_p95)):
        off = [abs(pick(one) / pick(expected) - 1) for one in found]
        outcome.figures.append(of_runs(f"P95 {name}, live against replayed, off by", off, "", at_most=0.20))
        live_ms = [pick(one) for one in found]
        outcome.lines.append(f"- P95 {name}: replayed {pick(expected):,.0f} ms, live {spread(live_ms, 0)} ms.")
    told = [one.eta_covered for one in found if one.eta_covered is not None]
    outcome.lines.append(f"- ETA live: {spread(told, 2)} covered, {found[0].eta_told} told a run.")


# pieces


def vtc(shape: Shape) -> list[Arrival]:
    return shaped(read_trace(TRACES / "vtc_arena_27clients.csv"), shape)


def azure(shape: Shape) -> list[Arrival]:
    return shaped(read_trace(TRACES / "azure_llm_2023_code.csv"), shape)


def spike_machine() -> Machine:
    """Prompts are what takes time in that trace: those of its worst 10 s take OVERLOAD times as long to compute."""
    arrivals = azure(SPIKE)
    times_s = [arrival.at_s for arrival in arrivals]
    worst = max(sum(a.prompt_tokens for a in arrivals if from_s <= a.at_s < from_s + 10) for from_s in times_s) / 10
    return Machine(Costs(round(worst / OVERLOAD), 50.0), slots=8, context_tokens=CONTEXT_TOKENS)


def config(policy: str = "fair", limits_s: Mapping[Priority, float] | None = None) -> Config:
    changed = {p.value: ClassOptions(first_token_limit_s=limit_s) for p, limit_s in (limits_s or {}).items()}
    return Config(scheduler=msgspec.structs.replace(Turns(), policy=policy, **changed))


def served(arrivals: Sequence[Arrival], machine: Machine) -> dict[str, float]:
    """Weighted tokens by tenant, until the last arrival."""
    book = replay(arrivals, machine, config()).book
    return {tenant: tokens for (_, tenant), tokens in book.served_in_time.items()}


def poisson(rates: Mapping[str, float], span_s: float) -> list[Arrival]:
    """Requests of 100 tokens in and 50 out, at these rates per second."""
    draw, arrivals = random.Random(0), []
    for tenant, rate in rates.items():
        at_s = draw.expovariate(rate)
        while at_s < span_s:
            arrivals.append(Arrival(at_s, 100, 50, tenant, NORMAL))
            at_s += draw.expovariate(rate)
    return sorted(arrivals, key=lambda arrival: arrival.at_s)


def coverage(result: Result) -> float:
    told = [o for o in result.outcomes if o.eta_ms is not None and o.ttft_ms is not None][:N_ETA]
    return sum(o.eta_ms[0] <= o.ttft_ms <= o.eta_ms[1] for o in told if o.eta_ms and o.ttft_ms) / len(told)


def on_daemon(arrivals: Sequence[Arrival], machine: Machine, scheduler: str, n_runs: int = 1) -> list[Result]:
    """Live runs on one daemon, whose fake engine costs what the machine's does."""
    model, costs = models.tiny(), machine.costs
    toml = f"""
[models]
folders = ["{model.parent}"]
[models.defaults]
slots = {machine.slots}
context_tokens = {machine.context_tokens}
kv_cells = {machine.slots * machine.context_tokens}
keep_alive_s = -1
[fake]
enabled = true
tokens_per_s = {costs.decode_tokens_per_s}
prefill_tokens_per_s = {costs.prefill_tokens_per_s}
{scheduler}
"""
    results = []
    for _ in range(n_runs):
        with daemon.running(toml) as one:  # a new one, so that nothing is known of the model at the start
            results.append(asyncio.run(play(one.address, model.stem, arrivals)))
    return results


def in_words(found: Report) -> str:
    parts = [
        f"{one.name} {one.done} done, {one.refused} refused, TTFT p95 {(one.ttft_ms.p95 or 0.0) / 1e3:.1f} s"
        for one in found.classes
    ]
    return f"{'; '.join(parts)}; goodput {found.total.goodput_per_s:.2f}/s, {found.preemptions} preemptions."


def _ttft_p95(found: Report) -> float:
    assert found.total.ttft_ms.p95 is not None
    return found.total.ttft_ms.p95


def _e2el_p95(found: Report) -> float:
    assert found.total.e2el_ms.p95 is not None
    return found.total.e2el_ms.p95
