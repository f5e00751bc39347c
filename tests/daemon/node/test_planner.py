"""The plan is what the load then does."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.backends import kinds
from inferd.backends.facts import LoadPlan
from inferd.daemon.domain.decision import Evict, Load, Refuse
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.node.planner import _smaller, outlook, plan_load
from inferd.daemon.policy.corrections import Corrections
from inferd.tests.daemon.policy.tools import CHAT, FOREVER, add, job, reserve, scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.daemon.policy.scheduler import Scheduler
    from inferd.tests.daemon.node.house import House

    Open = Callable[..., House]

MIB = 1 << 20


async def test_a_model_that_fits(house: Any) -> None:
    report = plan_load(house.node, "alpha")
    assert (report.outcome, report.devices, report.victims) == ("fits", ("cpu",), ())
    assert report.pools[0][0] == "host"
    assert report.load_ms is not None
    await house.load()
    assert plan_load(house.node, "alpha").outcome == "loaded"


async def test_one_that_needs_another_to_make_way(open_house: Open) -> None:
    house = open_house(host_bytes=40 * MIB, scheduler=turns())
    await house.load("alpha")
    report = plan_load(house.node, "beta")
    assert (report.outcome, report.victims) == ("evicts", ("alpha",))
    await house.load("beta")
    assert house.state("alpha").value == "cold"


async def test_one_that_cannot_fit_says_what_would_help(open_house: Open) -> None:
    house = open_house(host_bytes=20 * MIB)
    report = plan_load(house.node, "alpha")
    assert report.outcome == "refused"
    assert "needs 30 MiB of memory, but only 20 MiB" in report.message
    assert "free 10 MiB more" in report.change
    with pytest.raises(InferdError) as caught:
        await house.load()
    assert caught.value.code is Code.NO_ROOM


async def test_one_behind_a_pinned_model_is_told_to_unpin_it(open_house: Open) -> None:
    house = open_house(host_bytes=40 * MIB, options={"pinned": True})
    await house.load("alpha")
    report = plan_load(house.node, "beta")
    assert (report.outcome, report.change) == ("refused", "pinned = false for alpha")
    assert [(holder.model, holder.stays) for holder in report.holders] == [("alpha", "pinned")]


async def test_planning_changes_nothing(open_house: Open) -> None:
    house = open_house(host_bytes=40 * MIB, scheduler=turns())
    await house.load("alpha")
    before = (dict(house.node.ledger.reservations), len(house.node.scheduler.journal))
    for _ in range(3):
        plan_load(house.node, "beta")
    assert before == (house.node.ledger.reservations, len(house.node.scheduler.journal))
    assert house.state("alpha").value == "ready"


async def test_an_unknown_model_is_not_planned(house: Any) -> None:
    with pytest.raises(InferdError, match="no model"):
        plan_load(house.node, "gamma")


async def test_the_smallest_change_comes_first(open_house: Open) -> None:
    resident = open_house().resident()
    plan = LoadPlan(backend="llama", path="", n_ctx=1024, n_slots=4, kv_cells=4096, n_threads=1)
    resident.model.plan = plan
    room = kinds.footprint(resident.model.facts, msgspec.structs.replace(plan, n_ctx=512, kv_cells=512)).bytes_on
    changes = [change for change, _ in _smaller(resident, room, Corrections())]
    assert changes[:3] == ["kv_cells = 2048", "kv_cells = 1024", 'kv_type = "q8_0"']
    assert changes[-2:] == [
        "context_tokens = 512 and kv_cells = 512",
        "slots = 1, context_tokens = 256 and kv_cells = 256",
    ]


async def test_fewer_calls_side_by_side_are_cheaper_than_less_context(open_house: Open) -> None:
    resident = open_house().resident()
    plan = LoadPlan(backend="onnx", path="", n_ctx=512, n_slots=4, kv_cells=512, n_threads=2, n_lanes=2)
    resident.model.plan = plan
    change, smaller = next(iter(_smaller(resident, {"host": 0}, Corrections())))
    assert (change, smaller.n_lanes) == ("instances = 1", 1)


async def test_without_the_model_that_guesses_is_cheaper_than_with_fewer_cells(open_house: Open) -> None:
    resident = open_house().resident()
    facts = resident.model.facts
    plan = LoadPlan(backend="llama", path="", n_ctx=1024, n_slots=4, kv_cells=4096, n_threads=1, draft=facts)
    resident.model.plan = plan
    changes = list(_smaller(resident, {"host": 0}, Corrections()))
    assert [change for change, _ in changes][:2] == ['spec_type = "ngram-simple"', "kv_cells = 2048"]
    assert changes[0][1].draft is None


def turns() -> Any:
    from inferd.daemon.domain.config import Turns

    return Turns(min_resident_s=0.0)


def random_state(draw: random.Random) -> Scheduler:
    """Some models loaded, some busy, leased or pinned, on a machine of some size; `m` may be on a GPU as well."""
    it = scheduler(host_bytes=draw.randrange(40, 300))
    it.rooms.ledger.add_pool("gpu0", draw.randrange(40, 150), 0)
    if draw.random() < 0.5:
        it.add_place("m", "m@gpu0", {"gpu0": draw.randrange(5, 90), "host": draw.randrange(1, 10)})
    for i in range(draw.randrange(1, 7)):
        pool = "gpu0" if draw.random() < 0.3 else "host"
        add(it, f"m{i}", {pool: draw.randrange(5, 90)}, 10.0, slots=2, pinned=draw.random() < 0.15)
    for name in list(it.lanes):
        if name != "m" and draw.random() < 0.7 and it.rooms.ledger.shortfall(it.places[name].bytes_on) is None:
            assert it.on_load(name, 0.0) == [Load(name)]
            reserve(it, name)
            it.on_ready(name, 2, 1000, draw.random(), 0.0)
            for _ in range(draw.randrange(3)):
                it.on_request(job(draw.choice(list(type(CHAT))), name, arrived_s=1.0), 1.0)
            if draw.random() < 0.15:
                it.on_lease(name, "lease", 1.0)
            if draw.random() < 0.15:
                it.on_closed(name, FOREVER)
    return it


def test_a_plan_and_the_load_after_it_have_the_same_outcome() -> None:
    """In 300 random states; the bench does 1,000."""
    for seed in range(300):
        assert outcomes_agree(random.Random(seed)), seed


def outcomes_agree(draw: random.Random) -> bool:
    """Whether what is planned for `m` is what asking for it then comes to."""
    it = random_state(draw)
    match draw.randrange(8):
        case 0:
            it.on_pressure(draw.choice((15.0, 25.0)), 4.0)
        case 1:
            it.places["m"].closed_until_s = draw.choice((4.0, 6.0, FOREVER))
        case 2:
            it.on_lease("m", "lease", 4.0)
    planned = outlook(it, "m", 5.0)
    decisions = it.on_load("m", 5.0)
    victims = tuple(decision.place for decision in decisions if isinstance(decision, Evict))
    loads, refused = Load(planned.place.name) in decisions, any(isinstance(decision, Refuse) for decision in decisions)
    match planned.outcome:
        case "fits":
            return loads and not victims
        case "evicts":
            return victims == planned.victims and not loads
        case "refused":
            return refused
        case _:
            return not decisions
