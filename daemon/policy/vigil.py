"""When a worker counts as dead though its process is there: from what is seen of it once a second.

Looks are counted, not seconds: a daemon that stood still itself has not looked, and holds nothing against its workers.
"""

from __future__ import annotations

STOPPED_LOOKS = 2  # in a row; one alone may be a shell that stops and wakes us all
SILENT_LOOKS = 10
TIMES = 10.0  # as long as the longest step so far
FIRST_STEP_S = 600.0  # how long steps take is not known before one is over; a load that gets no further counts as one


class Vigil:
    """Beside one worker that is loaded, or being so."""

    __slots__ = ("_asleep", "_beats", "_cpu_ticks", "_far", "_most_pages", "_silent", "_still", "_stopped")

    def __init__(self) -> None:
        self._stopped = self._silent = self._asleep = self._still = 0
        self._beats = -1.0
        self._far = -1.0, 0
        self._cpu_ticks = self._most_pages = -1

    def look(self, *, stopped: bool, beats: float, step_age_s: float, longest_s: float, step_limit_s: float) -> str:
        """Why it is to be ended, for people; "" while it may go on.

        No beats at all: it has not begun to beat. A step may always take `step_limit_s`; 0: for ever.
        """
        self._stopped = self._stopped + 1 if stopped else 0
        self._silent = self._silent + 1 if beats and beats == self._beats else 0
        self._beats = beats
        if self._stopped >= STOPPED_LOOKS:
            return "it was stopped by a signal"
        if self._silent >= SILENT_LOOKS:
            return f"it has shown no sign of life {SILENT_LOOKS} times"
        limit_s = max(step_limit_s, longest_s * TIMES if longest_s else FIRST_STEP_S)
        if step_limit_s and step_age_s > limit_s:
            return f"one step has taken it more than {limit_s:.3g} s, and none before more than {longest_s:.2g} s"
        return ""

    def look_at_load(
        self, far: tuple[float, int], resident_pages: int, cpu_ticks: int, *, asleep: bool, step_limit_s: float
    ) -> str:
        """Why a load is to be ended; a look stands for a second.

        It gets on when `far` (what the engine says, and what was read from a disk on the way) is another, or more of it
        is in memory than ever. Without that it may compute, or wait for a disk, for long.
        """
        got_on = far != self._far or resident_pages > self._most_pages
        self._still = 0 if got_on else self._still + 1
        self._asleep = self._asleep + 1 if asleep and not got_on and cpu_ticks == self._cpu_ticks else 0
        self._far, self._cpu_ticks = far, cpu_ticks
        self._most_pages = max(self._most_pages, resident_pages)
        if step_limit_s and self._asleep > step_limit_s:
            return f"it has done nothing at all for {self._asleep} s of its load"
        if step_limit_s and self._still > max(step_limit_s, FIRST_STEP_S):
            return f"its load has got no further for {self._still} s"
        return ""
