"""One model in several places: a second copy is a luxury, and a place that is lost takes nothing with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from inferd.daemon.domain.decision import Evict, Load, Start, Unload
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.policy import lane
from inferd.daemon.policy.audit import check_integrity
from inferd.tests.daemon.policy.tools import (
    BATCH,
    CHAT,
    FOREVER,
    NORMAL,
    add,
    job,
    pace,
    preempted,
    rejected,
    reserve,
    scheduler,
    started,
)

if TYPE_CHECKING:
    from inferd.daemon.domain.decision import Decision
    from inferd.daemon.domain.request import Job
    from inferd.daemon.policy.scheduler import Scheduler

A, B = "m@gpu0", "m@gpu1"
FAILED = InferdError(Code.MODEL_FAILED, "it is so")


def two(replicas: int = 2, gpu_bytes: int = 60, **options: Any) -> Scheduler:
    """`m` may be on either of two GPUs, whose room one copy takes; `rival` only on the second one."""
    it = scheduler(**options)
    for gpu in ("gpu0", "gpu1"):
        it.rooms.ledger.add_pool(gpu, gpu_bytes, 0)
    it.add_model("m", 10.0, replicas=replicas)
    it.add_place("m", A, {"gpu0": 50})
    it.add_place("m", B, {"gpu1": 50})
    add(it, "rival", {"gpu1": 50})
    return it


def come(it: Scheduler, place: str, now_s: float = 1.0, slots: int = 1, kv_cells: int = 100_000) -> list[Decision]:
    """What the Node does with a Load, up to the worker's word."""
    reserve(it, place)
    decisions = it.on_ready(place, slots, kv_cells, 0.1, now_s)
    check_integrity(it)
    return decisions


def both(**options: Any) -> tuple[Scheduler, Job, Job]:
    """A copy on each GPU, and one job in each."""
    it, first, second = two(**options), job(BATCH), job(BATCH)
    assert it.on_request(first, 0.0) == [Load(A)]
    assert it.on_request(second, 0.0) == []
    assert come(it, A) == [Start(first, A), Load(B)]
    assert come(it, B) == [Start(second, B)]
    return it, first, second


def test_the_first_load_goes_to_the_preferred_place_and_a_second_one_comes_when_somebody_waits() -> None:
    it, _, _ = both()
    assert len(it.lanes["m"].running) == 2


def test_without_replicas_there_is_one_copy() -> None:
    it = two(replicas=1)
    it.on_request(job(), 0.0)
    it.on_request(job(), 0.0)
    assert len(come(it, A)) == 1
    assert it.on_tick(50.0) == []


def test_while_a_slot_is_free_there_is_no_second_copy() -> None:
    it = two()
    it.on_request(job(), 0.0)
    come(it, A, slots=2)
    assert started(it.on_request(job(), 1.0))
    assert it.on_request(job(), 1.0) == [Load(B)]


def test_where_the_preferred_place_is_taken_the_other_one_is_loaded() -> None:
    it = two(replicas=1)
    it.rooms.ledger.reserve("foreign", {"gpu0": 30})
    assert it.on_request(job(), 0.0) == [Load(B)]


def test_nobody_makes_way_for_a_second_copy() -> None:
    it = two()
    assert it.on_load("rival", 0.0) == [Load("rival")]
    come(it, "rival")
    it.on_request(job(CHAT), 0.0)
    it.on_request(job(CHAT), 0.0)
    come(it, A)
    assert it.on_tick(9.0) == []


def test_with_memory_under_pressure_there_is_no_second_copy() -> None:
    it = two()
    it.on_pressure(15.0, 0.0)
    it.on_request(job(), 0.0)
    it.on_request(job(), 0.0)
    assert len(come(it, A)) == 1


def test_a_second_copy_makes_way_at_once_even_when_it_works() -> None:
    it, _, second = both()
    assert it.on_request(job(BATCH, "rival", arrived_s=5.0), 5.0) == [Evict(B)]
    it.on_closed(B, FOREVER)
    assert it.on_parked(second, 5.1) == []
    it.rooms.ledger.release(it.rooms.ledger.reservations[B])
    assert it.on_cold(B, 5.2) == [Load("rival")]


def test_the_only_copy_is_as_busy_as_ever() -> None:
    it = two(replicas=1)
    it.rooms.ledger.reserve("foreign", {"gpu0": 30})
    it.on_request(job(BATCH), 0.0)
    come(it, B)
    assert it.on_request(job(BATCH, "rival", arrived_s=5.0), 5.0) == []


def test_a_lease_holds_one_copy() -> None:
    it, first, _ = both()
    it.on_lease("m", "lease", 2.0)
    assert it.on_request(job(CHAT, "rival", arrived_s=5.0), 5.0) == [Evict(B)]
    it.on_released(first, 6.0)
    assert it.places[A].idle_since_s is None


def test_copies_share_one_line_and_the_less_busy_one_takes_the_next() -> None:
    it = two()
    jobs = [job() for _ in range(5)]
    for one in jobs:
        it.on_request(one, 0.0)
    come(it, A, slots=2)
    assert [decision for decision in come(it, B, slots=2) if isinstance(decision, Start)] == [
        Start(jobs[2], B),
        Start(jobs[3], B),
    ]
    it.on_released(jobs[2], 2.0)
    assert it.lanes["m"].place_of(jobs[4]).name == B
    it.on_released(jobs[0], 2.0)
    assert it.on_request(late := job(), 3.0) == [Start(late, A)]
    assert [r.answer for r in it.journal.about(late.id) if r.kind == "route"] == [A]


def test_a_session_goes_on_where_its_last_turn_ran_and_another_tenants_of_that_name_does_not() -> None:
    it = two()
    jobs = [job(session_id=name) for name in ("", "", "s")]
    for one in jobs:
        it.on_request(one, 0.0)
    come(it, A, slots=2)
    come(it, B, slots=4)
    assert it.lanes["m"].place_of(jobs[2]).name == B
    for one in jobs:
        it.on_released(one, 2.0)
    crowd = [job() for _ in range(3)]
    for one in crowd:
        it.on_request(one, 3.0)
    assert [it.lanes["m"].place_of(one).name for one in crowd] == [A, B, B]
    theirs, turn = job(tenant="other", session_id="s"), job(session_id="s")
    assert it.on_request(theirs, 4.0) == [Start(theirs, A)]
    it.on_released(theirs, 5.0)
    assert it.on_request(turn, 6.0) == [Start(turn, B)]


def test_only_so_many_sessions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "MAX_SESSIONS", 2)
    it = two()
    for name in ("a", "b", "a", "c", ""):
        it.lanes["m"].remember(("t", name), A)
    assert list(it.lanes["m"].sessions) == [("t", "a"), ("t", "c")]


def test_who_waits_for_cells_takes_the_copy_that_has_them() -> None:
    it = two()
    for _ in range(3):
        it.on_request(job(n_prompt=60), 0.0)
    come(it, A, slots=2, kv_cells=150)
    come(it, B, slots=2, kv_cells=400)
    assert [len(it.places[place].running) for place in (A, B)] == [1, 2]


def test_an_urgent_request_parks_the_cheapest_of_both_copies() -> None:
    it, first, second = both()
    first.generated += [1] * 50
    assert preempted(it.on_request(job(CHAT, arrived_s=2.0), 2.0)) == [second]
    assert it.places[B].parking == {second}


def test_an_idle_copy_goes_alone() -> None:
    it, first, second = both()
    it.on_released(second, 2.0)
    assert it.on_tick(12.0) == [Unload(B)]
    it.on_released(first, 13.0)
    assert it.on_tick(23.0) == [Unload(A), Unload(B)]


def test_what_ran_in_a_lost_place_goes_on_in_the_other_one() -> None:
    it, first, second = both()
    it.on_closed(A, FOREVER)
    assert it.on_parked(first, 2.0) == []
    it.rooms.ledger.release(it.rooms.ledger.reservations[A])
    it.on_freed(A, 2.1)
    it.remove_place(A)
    check_integrity(it)
    assert it.on_released(second, 3.0) == [Start(first, B)]


def test_a_copy_that_cannot_be_loaded_sends_nobody_away() -> None:
    it = two()
    waits = [job(), job()]
    for one in waits:
        it.on_request(one, 0.0)
    come(it, A)
    it.on_closed(B, FOREVER)
    assert it.on_load_failed(B, FAILED, 2.0) == []
    assert it.on_released(waits[0], 3.0) == [Start(waits[1], A)]


def test_a_load_that_failed_is_tried_in_the_next_place_and_then_all_are_told() -> None:
    it, waits = two(), job()
    it.on_request(waits, 0.0)
    it.on_closed(A, FOREVER)
    assert it.on_load_failed(A, FAILED, 1.0) == [Load(B)]
    it.on_closed(B, FOREVER)
    assert rejected(it.on_load_failed(B, FAILED, 2.0)) == [(waits, "model_failed")]


def test_a_model_that_fits_nowhere_is_refused_with_the_figures_of_the_preferred_place() -> None:
    it, waits = two(gpu_bytes=40), job()
    (refusal, _) = it.on_request(waits, 0.0)
    assert rejected([refusal]) == [(waits, "no_room")]
    assert refusal.error.details["pool"] == "gpu0"  # type: ignore[union-attr]


def test_a_model_that_fits_in_one_of_two_places_waits_for_that_one() -> None:
    it, waits = two(), job(NORMAL)
    it.rooms.ledger.add_pool("gpu0", 40, 0)
    assert it.on_load("rival", 0.0) == [Load("rival")]
    come(it, "rival")
    it.on_lease("rival", "lease", 0.0)
    assert it.on_request(waits, 1.0) == []
    assert it.why(waits, 1.0) == "room"
    assert it.on_lease_ended("rival", "lease", 2.0) == [Evict("rival")]


def test_a_place_that_is_taken_away_must_be_empty() -> None:
    it, _, _ = both()
    with pytest.raises(AssertionError):
        it.remove_place(A)


# what places have to do with each other


def many(*models: str, gpus: int = 2, replicas: int = 1, **options: Any) -> Scheduler:
    """Models that may be on any one of the GPUs, each of which has room for one."""
    it = scheduler(**options)
    for i in range(gpus):
        it.rooms.ledger.add_pool(f"gpu{i}", 60, 0)
    for model in models:
        it.add_model(model, -1.0, replicas=replicas)
        for i in range(gpus):
            it.add_place(model, f"{model}@gpu{i}", {f"gpu{i}": 50})
    return it


def test_of_a_leased_model_with_two_copies_one_stays_whoever_asks() -> None:
    it, _, _ = both()
    add(it, "large", {"gpu0": 50, "gpu1": 50})
    it.on_lease("m", "lease", 2.0)
    assert it.on_request(job(CHAT, "large", arrived_s=5.0), 5.0) == []
    assert it.why(next(iter(it.lanes["large"].line)), 5.0) == "room"


def test_two_who_ask_at_once_do_not_take_both_copies() -> None:
    it, _, _ = both()
    add(it, "left", {"gpu0": 50})
    it.on_lease("m", "lease", 2.0)
    it.on_pressure(25.0, 2.0)
    for model in ("left", "rival"):
        assert it.on_request(job(CHAT, model, arrived_s=3.0), 3.0) == []
    for second in range(4, 200):
        it.on_pressure(0.0, float(second))
    assert it.on_tick(200.0) == [Evict(B)]


def test_a_model_that_makes_way_waits_its_time_before_another_makes_way_for_it() -> None:
    it = many("a", "b", "c", "d", gpus=3)
    runs = {model: job(BATCH if model == "a" else CHAT, model) for model in "abc"}
    for i, (model, one) in enumerate(runs.items()):
        it.on_request(one, 0.0)
        come(it, f"{model}@gpu{i}")
    assert it.on_request(job(CHAT, "d", arrived_s=100.0), 100.0) == [Evict("a@gpu0")]
    it.on_closed("a@gpu0", FOREVER)
    assert it.on_parked(runs["a"], 100.1) == []
    assert it.on_tick(103.0) == []


def test_who_makes_way_is_not_refused_for_the_places_that_can_never_be() -> None:
    it = many("a", "p")
    it.lanes["p"].pinned = True
    it.on_load("p", 0.0)
    come(it, "p@gpu0")
    it.on_request(runs := job(BATCH, "a"), 0.0)
    come(it, "a@gpu1")
    add(it, "x", {"gpu1": 50})
    assert it.on_request(job(CHAT, "x", arrived_s=5.0), 5.0) == [Evict("a@gpu1")]
    it.on_closed("a@gpu1", FOREVER)
    assert it.on_parked(runs, 5.1) == []
    assert runs in it.lanes["a"].line


def test_while_others_make_way_for_one_place_no_other_one_is_loaded() -> None:
    it = many("a")
    for i, name in enumerate(("x", "y")):
        add(it, name, {f"gpu{i}": 50}, -1.0)
        it.on_load(name, 0.0)
        come(it, name)
    it.on_lease("y", "lease", 1.0)
    assert it.on_request(job(model="a", arrived_s=5.0), 5.0) == [Evict("x")]
    it.on_closed("x", FOREVER)
    it.on_closed("y", FOREVER)
    it.on_lease_ended("y", "lease", 5.1)
    it.rooms.ledger.release(it.rooms.ledger.reservations["y"])
    assert it.on_cold("y", 5.2) == []
    check_integrity(it)


def test_a_place_that_failed_is_not_tried_again_before_somebody_was_told() -> None:
    it, waits = two(), job()
    it.on_request(waits, 0.0)
    it.on_closed(A, FOREVER)
    assert it.on_load_failed(A, FAILED, 1.0) == [Load(B)]
    assert it.on_cold(A, 2.0) == []  # its back-off is over
    it.on_closed(B, FOREVER)
    assert rejected(it.on_load_failed(B, FAILED, 3.0)) == [(waits, "model_failed")]
    assert it.on_request(job(), 4.0) == [Load(A)]


def test_the_helper_that_reads_prompts_stays_with_the_copy_that_needs_it() -> None:
    it = two()
    it.rooms.ledger.reserve("foreign", {"gpu0": 30})
    it.rooms.ledger.reserve("m/prompt-1", {"host": 30})
    it.on_request(job(CHAT), 0.0)
    come(it, B)
    it.on_lease("m", "lease", 1.0)
    add(it, "x", {"host": 80})
    assert it.on_request(job(BATCH, "x", arrived_s=5.0), 5.0) == []
    (holder,) = it.rooms.question(it.places["x"], 5.0).holders
    assert (holder.model, holder.stays, holder.bytes_on) == (B, "leased", {"gpu1": 50, "host": 30})


def test_a_forecast_does_not_count_on_a_copy_that_is_on_its_way_out() -> None:
    it, _, _ = both()
    it.on_closed(B, FOREVER)
    pace(it, decode_ms=10.0)
    forecasts = []
    for _ in range(2):
        late = job(BATCH, arrived_s=2.0)
        it.on_request(late, 2.0)
        forecasts.append(it.lanes["m"].line.tickets[late].forecast_ms or 0.0)
    assert forecasts[1] == pytest.approx(2 * forecasts[0], rel=0.02)


def test_a_model_that_has_no_copy_comes_before_the_second_one_of_another() -> None:
    it = two()
    it.rooms.ledger.observe("gpu1", 30)
    it.on_request(job(), 1.0)
    it.on_request(job(), 1.0)
    assert len(come(it, A)) == 1
    it.rooms.ledger.add_pool("gpu1", 80, 0)
    it.rooms.ledger.observe("gpu1", 31)
    it.on_pressure(25.0, 1.5)
    it.on_request(job(model="rival", arrived_s=2.0), 2.0)
    for second in range(3, 60):
        it.on_pressure(0.0, float(second))
    it.rooms.ledger.observe("gpu1", 0)
    assert it.on_tick(60.0) == [Load("rival")]


def test_whoever_gives_a_model_up_ends_its_leases() -> None:
    it, _, _ = both()
    it.on_lease("m", "lease", 2.0)
    it.on_given_up("m")
    assert not it.lanes["m"].leases
    assert it.on_lease_ended("m", "lease", 3.0) == []
