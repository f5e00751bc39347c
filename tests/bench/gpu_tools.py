"""What the probes of a GPU share: its driver's figures, and waiting."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING

from inferd.daemon.system.hardware import Sensors, detect

from .figures import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def on_device(pid: int) -> int:
    """Bytes that the driver counts for a process."""
    sensors = Sensors(detect())
    try:
        return sum(n or 0 for reading in sensors.read()[1] for its, n in reading.processes if its == pid)
    finally:
        sensors.close()


def until(true: Callable[[], bool], limit_s: float = 30.0) -> float:
    """Seconds until then."""
    start_s = time.monotonic()
    while not true():
        if time.monotonic() - start_s > limit_s:
            raise RuntimeError(f"not after {limit_s:g} s")
        time.sleep(0.01)
    return time.monotonic() - start_s


def each(parts: Sequence[Callable[[Outcome, bool], None]], *, quick: bool) -> Outcome:
    """Each part by itself: one that fails is told of, and the others are measured."""
    outcome = Outcome([])
    for part in parts:
        start_s = time.monotonic()
        try:
            part(outcome, quick)
        except Exception:
            outcome.lines.append(f"**{part.__name__} failed**: {traceback.format_exc(limit=-3)}")
        print(f"{part.__name__}: {time.monotonic() - start_s:.0f} s", *outcome.lines[-4:], sep="\n", flush=True)
    return outcome
