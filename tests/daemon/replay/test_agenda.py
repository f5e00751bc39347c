"""Virtual time is an ordered list."""

from __future__ import annotations

import math

from inferd.daemon.replay.agenda import Agenda


def test_things_come_in_their_order_and_equals_as_they_were_put_down() -> None:
    agenda, seen = Agenda(), list[str]()
    for time_s, name in ((2.0, "late"), (1.0, "first"), (1.0, "second")):
        agenda.at(time_s, lambda name=name: seen.append(name))  # type: ignore[misc]
    while agenda.next_s() < math.inf:
        agenda.now_s = agenda.next_s()
        agenda.pop()()
    assert (seen, agenda.now_s) == (["first", "second", "late"], 2.0)


def test_after_counts_from_now() -> None:
    agenda = Agenda()
    agenda.now_s = 5.0
    agenda.after(1.5, lambda: None)
    assert agenda.next_s() == 6.5
