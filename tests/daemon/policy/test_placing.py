"""Which place a model is loaded in, and which copy a request runs in."""

from __future__ import annotations

import pytest

from inferd.daemon.policy.journal import recompute
from inferd.daemon.policy.placing import Copy, Option, PlaceQuestion, RouteQuestion, place, route
from inferd.daemon.policy.residency import EvictQuestion, Holder
from inferd.tests.daemon.policy.tools import as_json


def option(name: str, free: int, *holders: tuple[str, int, float, str], now: bool = True) -> Option:
    """A place that needs 10 bytes of the device of its name. `holders`: (model, bytes, cost, why it stays)."""
    held = tuple(Holder(model, {name: n_bytes}, cost, stays) for model, n_bytes, cost, stays in holders)
    return Option(name, EvictQuestion(f"m@{name}", {name: 10}, {name: free}, held), now)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ([option("gpu0", 20), option("gpu1", 90)], "gpu0"),  # the preferred one, not the emptier one
        ([option("gpu0", 5, ("a", 10, 0.0, "")), option("gpu1", 10)], "gpu1"),  # where nobody makes way
        ([option("gpu0", 10, now=False), option("gpu1", 10)], "gpu1"),  # where nothing is waited for
        ([option("gpu0", 10, now=False), option("gpu1", 0, ("a", 10, 0.0, ""))], "gpu0"),  # waiting beats evicting
        ([option("gpu0", 5, ("a", 10, 9.0, "")), option("gpu1", 0, ("b", 10, 2.0, ""))], "gpu1"),  # the cheaper victim
        ([option("gpu0", 5, ("a", 10, 1.0, "busy")), option("gpu1", 0, ("b", 10, 2.0, ""))], "gpu1"),
        ([option("gpu0", 5, ("a", 10, 1.0, "busy"))], None),
        ([], None),
    ],
)
def test_a_model_goes_where_that_costs_least(options: list[Option], chosen: str | None) -> None:
    question = PlaceQuestion("m", tuple(options))
    assert place(question) == chosen
    assert recompute("place", as_json(question)) == chosen


@pytest.mark.parametrize(
    ("copies", "chosen"),
    [
        ([Copy("a", 1, 4, 500, True), Copy("b", 3, 4, 100, True)], "b"),  # the less busy one
        ([Copy("a", 1, 2, 500, True), Copy("b", 3, 8, 900, True)], "a"),  # by the part of its slots
        ([Copy("a", 2, 4, 100, True), Copy("b", 2, 4, 500, True)], "b"),  # the one with more cells
        ([Copy("a", 2, 4, 500, True), Copy("b", 2, 4, 500, True)], "a"),
        ([Copy("a", 3, 4, 10, False), Copy("b", 1, 4, 500, True)], "b"),
        ([Copy("a", 3, 4, 10, False)], None),
        ([Copy("a", 1, 4, 500, True, knows=True), Copy("b", 3, 4, 900, True)], "a"),  # its session was there
        ([Copy("a", 1, 4, 500, False, knows=True), Copy("b", 3, 4, 900, True)], "b"),
    ],
)
def test_a_request_runs_where_it_is_least_crowded(copies: list[Copy], chosen: str | None) -> None:
    question = RouteQuestion("r", tuple(copies))
    assert route(question) == chosen
    assert recompute("route", as_json(question)) == chosen
