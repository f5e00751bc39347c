"""The page between a worker and the daemon."""

from __future__ import annotations

import os
import threading
import time

from inferd.backends import pulse
from inferd.backends.pulse import Pulse, Signs


def test_a_new_page_bears_no_sign() -> None:
    fd = pulse.create()
    assert pulse.read(fd) == Signs(0.0, 0.0, 0.0)
    os.close(fd)


def test_a_step_shows_while_it_lasts_and_the_longest_is_kept() -> None:
    fd = pulse.create()
    mine = Pulse(os.dup(fd))
    before_s = time.monotonic()
    mine.begin()
    assert before_s <= pulse.read(fd).step_s <= time.monotonic()
    mine.end()
    first = pulse.read(fd)
    assert first.step_s == 0.0
    assert first.longest_s > 0.0
    mine.begin()
    while time.monotonic() - pulse.read(fd).step_s <= first.longest_s:
        pass
    mine.end()
    longest_s = pulse.read(fd).longest_s
    assert longest_s > first.longest_s
    mine.begin()
    mine.end()
    assert pulse.read(fd).longest_s >= longest_s
    os.close(fd)


def test_the_heart_beats_by_itself() -> None:
    fd = pulse.create()
    mine = Pulse(os.dup(fd))
    threading.Thread(target=mine.beat, daemon=True).start()
    limit_s = time.monotonic() + 10
    while pulse.read(fd).beats < 2 and time.monotonic() < limit_s:
        pass
    assert pulse.read(fd).beats >= 2
    os.close(fd)


def test_a_page_that_was_cut_short_is_an_empty_one() -> None:
    fd = pulse.create()
    os.truncate(fd, 3)
    assert pulse.read(fd) == Signs(0.0, 0.0, 0.0)
    os.close(fd)
