"""Why one waits: every reason has its sentence, with the figures; and the order of a line is asked for once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.facts import HOST
from inferd.daemon.domain.request import Priority
from inferd.daemon.policy.explain import PARKED, WAITS_FOR
from inferd.daemon.policy.fair import Counters, service
from inferd.daemon.policy.line import Line, Ticket
from inferd.daemon.policy.waiting import STAYS, Held, Room, Scene, Turn, Waiter, in_order, obstacle, sentence, size
from inferd.tests.daemon.policy.tools import BATCH, CHAT, NORMAL, job

if TYPE_CHECKING:
    from inferd.daemon.domain.request import Job

GIB = 1 << 30
FULL = Room("gpu0", 31 * GIB, 5 * GIB - GIB // 10)
BATCH_RANK = 2


def said(why: str, scene: Scene, turn: Turn | None = None, cells: int = 0, parked: str = "") -> str:
    return sentence(obstacle(why, scene), Waiter(why, turn or Turn(0), cells, parked))


def line(*, fifo: bool = False) -> Line:
    return Line({priority: Counters() for priority in Priority}, fifo=fifo)


def enter(it: Line, *jobs: Job) -> list[Job]:
    for one in jobs:
        it.add(one, Ticket(10, 10, math.inf, pickable=True))
    return list(jobs)


@pytest.mark.parametrize(
    ("why", "scene", "turn", "text"),
    [
        ("prompt", Scene("demo"), Turn(3), "its prompt is being read"),
        ("predecessor", Scene("demo"), Turn(3), "the request it supersedes has not let go of its slot yet"),
        ("load", Scene("demo", progress=0.404), Turn(0), "demo is being loaded: 40 %"),
        (
            "load",
            Scene("demo", progress=0.0, on=("gpu0", "gpu1")),
            Turn(2),
            "demo is being loaded on gpu0, gpu1: 0 %; 2 requests are before it",
        ),
        ("load", Scene("demo", awaits=("a",)), Turn(0), "demo is loaded as soon as a has made way"),
        ("load", Scene("demo", awaits=("a", "b", "c")), Turn(0), "demo is loaded as soon as a, b and c have made way"),
        ("load", Scene("demo", retry_in_s=3.96), Turn(0), "demo has failed, and is tried again in 4.0 s"),
        ("load", Scene("demo"), Turn(0), "demo is on its way out, and is loaded again after that"),
        (
            "pressure",
            Scene("demo", psi=23.4),
            Turn(0),
            "the machine is short of memory (tasks stood still for it 23 % of the last 10 s), "
            "and nothing is loaded until that is over",
        ),
        ("slot", Scene("demo", slots=1), Turn(0), "the slot of demo is taken; it is next"),
        ("slot", Scene("demo", slots=4), Turn(1), "all 4 slots of demo are taken; 1 request is before it"),
        ("slot", Scene("demo", slots=4), Turn(3000), "all 4 slots of demo are taken; 3,000 requests are before it"),
        ("turn", Scene("demo", slots=4), Turn(0), "it is next"),
        ("turn", Scene("demo", slots=4, cells_free=9), Turn(2), "2 requests are served before it"),
        (
            "turn",
            Scene("demo", slots=4, cells_free=512, first_cells=2080),
            Turn(2),
            "2 requests are served before it; "
            "the first of them needs 2,080 KV cells, one for each token, and 512 are free",
        ),
    ],
)
def test_what_one_waits_for_is_said_with_the_figures(why: str, scene: Scene, turn: Turn, text: str) -> None:
    assert said(why, scene, turn) == text


def test_cells_that_are_missing_are_counted() -> None:
    text = said("memory", Scene("demo", cells_free=512), Turn(0), cells=2080)
    assert text == "it needs 2,080 KV cells, one for each token, and 512 of demo are free; it is next"
    assert "and 0 of demo" in said("memory", Scene("demo", cells_free=-3), cells=1)


def test_memory_that_is_missing_has_both_numbers_and_its_holders_the_largest_first() -> None:
    holders = (Held("embed-e5", GIB, "young"), Held("qwen2.5-7b", 9 * GIB, "busy", 1.24), Held("tiny", 1, "leased"))
    room = Room("gpu0", FULL.need_bytes, FULL.free_bytes, holders)
    assert said("room", Scene("llama3-70b", room=room)) == (
        "llama3-70b needs 31.0 GiB on gpu0 and 4.9 GiB are free; held by "
        "qwen2.5-7b (busy, about 1.2 s more), embed-e5 (just loaded), tiny (leased by a client)"
    )


def test_of_many_holders_the_small_ones_are_counted() -> None:
    holders = tuple(Held(f"m{i}", i) for i in range(5))
    text = said("room", Scene("big", room=Room(HOST, GIB, 512 << 20, holders)))
    assert text == "big needs 1.0 GiB of memory and 512 MiB are free; held by m4, m3, m2 and 2 more"


def test_other_programs_are_to_blame_where_it_would_fit_without_them() -> None:
    blamed, not_enough = (Room("gpu0", 4 * GIB, GIB, others_bytes=n * GIB) for n in (3, 2))
    assert said("room", Scene("m", room=blamed)).endswith("; it would fit without the 3.0 GiB that other programs use")
    assert "other programs" not in said("room", Scene("m", room=not_enough))


def test_what_is_overdrawn_has_nothing_free() -> None:
    assert "and 0 MiB are free" in said("room", Scene("m", room=Room(HOST, GIB, -GIB)))


def test_memory_that_will_be_free_is_waited_for() -> None:
    text = said("room", Scene("m", room=Room(HOST, GIB, GIB)))
    assert text == "a model that is on its way out still holds the memory that m needs"
    assert said("room", Scene("m")) == WAITS_FOR["room"]


@pytest.mark.parametrize("parked", PARKED)
def test_who_lost_its_slot_is_told_that_first(parked: str) -> None:
    text = said("slot", Scene("demo", slots=2), Turn(0), parked=parked)
    assert text == f"{PARKED[parked]}; all 2 slots of demo are taken; it is next"


@pytest.mark.parametrize("why", WAITS_FOR)
@pytest.mark.parametrize("n_before", [0, 1])
def test_every_reason_has_a_sentence(why: str, n_before: int) -> None:
    text = said(why, Scene("demo", slots=1), Turn(n_before), cells=1)
    assert text
    assert "None" not in text


def test_every_reason_to_stay_has_words() -> None:
    assert set(STAYS) == {"pinned", "leased", "busy", "young", "loading"}  # draining counts as free


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 MiB"), (GIB - 1, "1,024 MiB"), (GIB, "1.0 GiB"), (1500 * GIB, "1,500.0 GiB")]
)
def test_bytes_for_people(n: int, text: str) -> None:
    assert size(n) == text


# the line


def test_higher_classes_go_before() -> None:
    it = line()
    mine, chat, normal = enter(it, job(BATCH), job(CHAT), job(NORMAL))
    found = dict(in_order(it))
    assert list(found) == [chat, normal, mine]
    assert found[mine] == Turn(2, BATCH_RANK, 0, n_above=2)
    assert said("turn", Scene("m"), found[mine]) == "2 requests are served before it: interactive goes before batch"


def test_of_the_same_class_and_tenant_those_that_came_earlier_do() -> None:
    it = line()
    enter(it, *(job() for _ in range(3)))
    assert [turn for _, turn in in_order(it)] == [Turn(n, 1, 1) for n in range(3)]


def test_a_tenant_with_less_service_goes_before() -> None:
    it = line()
    mine, theirs = enter(it, job(tenant="me"), job(tenant="web"))
    it._counters[NORMAL].charge("me", 100.0)
    found = dict(in_order(it))
    assert found[mine] == Turn(1, 1, 1, n_others=1, n_tenants=1, other="web", less=True)
    text = said("slot", Scene("m", slots=1), found[mine])
    assert text == "the slot of m is taken; 1 request is before it: tenant web has had less service"
    assert found[theirs] == Turn(0, 1, 1)


def test_of_several_tenants_no_name_is_given() -> None:
    turn = Turn(2, 1, 1, n_others=2, n_tenants=2, other="web", less=True)
    assert said("turn", Scene("m"), turn) == "2 requests are served before it: other tenants have had less service"


def test_tenants_that_have_had_alike_take_turns() -> None:
    it = line()
    enter(it, job(CHAT), job(tenant="web"), job(tenant="me"), job(tenant="web"), job(tenant="me"))
    *_, last = in_order(it)
    assert last[1] == Turn(4, 1, 0, n_above=1, n_others=2, n_tenants=1, other="web")
    text = said("turn", Scene("m"), last[1])
    assert text == "4 requests are served before it: interactive goes before normal, tenants take turns"


def test_first_come_first_served_has_no_rule_to_name() -> None:
    it = line(fifo=True)
    enter(it, job(BATCH, tenant="a"), job(CHAT, tenant="b"))
    assert [turn for _, turn in in_order(it)] == [Turn(0), Turn(1)]


def test_the_order_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    it, n_asked = line(), 0
    enter(it, *(job() for _ in range(50)))
    order = it.order

    def counted() -> list[Job]:
        nonlocal n_asked
        n_asked += 1
        return order()

    monkeypatch.setattr(it, "order", counted)
    assert len(list(in_order(it))) == 50
    assert n_asked == 1


@given(st.lists(st.tuples(st.sampled_from(Priority), st.sampled_from("abc")), max_size=20), st.integers(0, 200))
def test_the_counts_are_those_of_who_is_before(rows: list[tuple[Priority, str]], served: int) -> None:
    it = line()
    for priority, tenant in rows:
        enter(it, job(priority, tenant=tenant))
        it._counters[priority].charge("a", service(served, 0))
    seen: list[Job] = []
    for one, turn in in_order(it):
        same = [other for other in seen if other.request.priority is one.request.priority]
        others = [other.request.tenant for other in same if other.request.tenant != one.request.tenant]
        assert turn.n_before == len(seen)
        assert turn.n_above == len(seen) - len(same)
        assert (turn.n_others, turn.n_tenants) == (len(others), len(set(others)))
        assert turn.other == (others[0] if others else "")
        seen.append(one)
    assert seen == it.order()
