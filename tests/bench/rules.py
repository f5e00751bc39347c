"""The scheduler's rules by themselves: how long a decision takes, and whether decisions are the right ones."""

from __future__ import annotations

import random
import time
from statistics import median
from typing import TYPE_CHECKING

from inferd.daemon.domain.config import Queue
from inferd.daemon.domain.request import Priority
from inferd.daemon.policy.residency import evict
from inferd.tests.daemon.node.test_planner import outcomes_agree
from inferd.tests.daemon.policy.test_residency import brute_force, random_question
from inferd.tests.daemon.policy.tools import job, pace, ready

from .figures import Figure, Outcome, of_runs, percentile

if TYPE_CHECKING:
    from inferd.daemon.policy.scheduler import Scheduler

TENANTS = 200
SIZES = (1_000, 10_000)
BAR_MS = 1.0


def measure(*, quick: bool) -> Outcome:
    n_runs = 3 if quick else 5
    times = {n: [decisions_ms(n, seed) for seed in range(n_runs)] for n in SIZES}
    largest = [percentile(run, 0.99) for run in times[SIZES[-1]]]
    growth = median(median(run) for run in times[SIZES[1]]) / median(median(run) for run in times[SIZES[0]])
    n_sets, n_states = (1_000, 100) if quick else (10_000, 1_000)
    figures = [
        of_runs(f"a decision with {SIZES[-1]:,} queued requests, p99", largest, "ms", at_most=BAR_MS),
        Figure("growth of a decision from 1,000 to 10,000 queued", growth, growth, growth, n_runs, "x", 13.3, False),
        _count("victim sets that differ from trying every set", wrong_sets(n_sets), n_sets),
        _count("loads that came out otherwise than planned", wrong_plans(n_states), n_states),
    ]
    lines = [
        f"With {n:,} queued requests of {TENANTS} tenants: p50 {median(median(r) for r in runs) * 1e3:.0f} us, "
        f"p99 {median(percentile(r, 0.99) for r in runs) * 1e3:.0f} us a decision (arrivals and ends of requests)."
        for n, runs in times.items()
    ]
    return Outcome(figures, lines)


def _count(name: str, n_wrong: int, n: int) -> Figure:
    return Figure(name, n_wrong, n_wrong, n_wrong, n, "", 0, False)


def decisions_ms(n_queued: int, seed: int) -> list[float]:
    """One model with eight slots and a full queue: what each arrival and each end of a request takes."""
    draw = random.Random(seed)
    queue = Queue(max_requests=10**6, max_requests_per_tenant=10**6, max_tokens=10**12, max_tokens_per_tenant=10**12)
    it = ready(slots=8, kv_cells=10**9, queue=queue)
    pace(it, prefill_ms=0.1, decode_ms=10.0)
    for _ in range(n_queued):
        it.on_request(_random_job(draw), 0.0)
    took_ms = []
    for i in range(2_000):
        start_s = time.perf_counter()
        if i % 2:
            it.on_request(_random_job(draw), float(i))
        else:
            _end_one(it, draw, float(i))
        took_ms.append((time.perf_counter() - start_s) * 1e3)
    return took_ms


def _random_job(draw: random.Random):  # type: ignore[no-untyped-def]
    deadline_ms = 10_000_000 if draw.random() < 0.02 else None
    priority = draw.choice(list(Priority))
    return job(
        priority, tenant=f"t{draw.randrange(TENANTS)}", n_prompt=draw.randrange(1, 4000), deadline_ms=deadline_ms
    )


def _end_one(it: Scheduler, draw: random.Random, now_s: float) -> None:
    lane = it.lanes["m"]
    ends = draw.choice(list(lane.running))
    ends.generated += [1] * 20
    it.on_released(ends, now_s)


def wrong_sets(n: int) -> int:
    draw = random.Random(0)
    questions = (random_question(draw, most=12) for _ in range(n))
    return sum(evict(question) != brute_force(question) for question in questions)


def wrong_plans(n: int) -> int:
    return sum(not outcomes_agree(random.Random(seed)) for seed in range(n))
