"""Hours of the chaos run (`--only soak --minutes N`): whether the daemon grows, beside what a shorter one looks at."""

from __future__ import annotations

import contextlib
import random
import statistics
import threading
import time
from typing import TYPE_CHECKING

from ..bench.figures import Outcome, of_runs
from . import storm, truths

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.tests.e2e.daemons import Daemon

    Sample = tuple[float, int]  # when, in monotonic seconds, and the daemon's resident bytes

MIB = 1 << 20
MINUTES = 60.0
EVERY_S = 2.0
WINDOW_S = 60.0  # of which the least counts: what one moment takes is given back
WARM = 1 / 6  # of the time, in which rings and caches get full
LEAST_WINDOWS = 10  # to speak of a slope
SLOPE_MIB_H = 1.0


def measure(*, quick: bool, seed: int, minutes: float = 0.0) -> Outcome:
    outcome = Outcome([])
    seconds = 20.0 if quick else (minutes or MINUTES) * 60
    samples: list[Sample] = []

    @contextlib.contextmanager
    def watch(one: Daemon) -> Iterator[None]:
        over = threading.Event()

        def look() -> None:
            while not over.wait(EVERY_S):
                samples.append((time.monotonic(), one.rss_bytes()))

        looker = threading.Thread(target=look, daemon=True)
        looker.start()
        try:
            yield
        finally:
            over.set()
            looker.join()

    storm.weather(outcome, "soak", storm.FAKE, truths.FAKES, seconds, random.Random(f"{seed} soak"), watch)
    floors = least(samples)
    title = f"soak of {seconds / 60:.3g} min"
    if len(floors) >= LEAST_WINDOWS:
        outcome.figures.append(of_runs(f"{title}: growth", [slope(floors)], "MiB/h", at_most=SLOPE_MIB_H))
    sizes = ", ".join(f"{n_bytes / MIB:.1f}" for _, n_bytes in least(samples, warm=0.0))
    outcome.lines.append(f"- the least of the daemon in each {WINDOW_S:g} s, MiB: {sizes}.")
    return outcome


def least(samples: list[Sample], warm: float = WARM) -> list[Sample]:
    """The smallest of each window, from when it is warm; windows that are not whole are left out."""
    if not samples:
        return []
    start_s, end_s = samples[0][0], samples[-1][0]
    begin_s, found = start_s + (end_s - start_s) * warm, []
    while begin_s + WINDOW_S <= end_s:
        inside = [n_bytes for at_s, n_bytes in samples if begin_s <= at_s < begin_s + WINDOW_S]
        if inside:
            found.append((begin_s, min(inside)))
        begin_s += WINDOW_S
    return found


def slope(floors: list[Sample]) -> float:
    """MiB an hour, by least squares."""
    times, sizes = zip(*floors, strict=True)
    return statistics.linear_regression(times, sizes).slope * 3600 / MIB
