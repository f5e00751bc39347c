"""Every decision has words."""

from __future__ import annotations

import pytest

from inferd.daemon.policy.admission import AdmitQuestion, Occupancy, Refusal
from inferd.daemon.policy.explain import PARKED, REFUSED, WAITS_FOR, rejected, sentence
from inferd.daemon.policy.journal import RULES, Record
from inferd.daemon.policy.placing import Copy, Option, PlaceQuestion, RouteQuestion
from inferd.daemon.policy.residency import EvictQuestion, Holder
from inferd.daemon.policy.turns import PreemptQuestion, Running, TurnQuestion, Waiting
from inferd.tests.daemon.policy.tools import BATCH, CHAT, job, ready


def record(kind: str, question: object) -> Record:
    return Record(0.0, kind, ("r",), "m", question, RULES[kind][1](question))  # type: ignore[arg-type]


def waiting(name: str, tenant: str, rank: int, served: float, arrival: int) -> Waiting:
    return Waiting(name, tenant, rank, served, None, arrival)


@pytest.mark.parametrize(
    ("loser", "owed", "why"),
    [
        (waiting("b", "t", 2, 0.0, 1), (), "interactive goes before batch"),
        (waiting("b", "u", 0, 7.0, 1), (), "tenant t has had less service (0 weighted tokens, u 7)"),
        (waiting("b", "t", 0, 0.0, 1), (), "it came later"),
    ],
)
def test_who_lost_a_turn_is_told_why(loser: Waiting, owed: tuple[int, ...], why: str) -> None:
    question = TurnQuestion("m", (waiting("a", "t", 0, 0.0, 0), loser), 3, owed)
    it = record("start", question)
    assert rejected(it) == [{"request": "b", "why": why}]
    assert sentence(it, "b") == f"passed over for a: {why}"
    assert sentence(it, "a") == "got a slot; 4 others went on waiting"


def test_a_floor_share_is_a_reason() -> None:
    question = TurnQuestion("m", (waiting("chat", "t", 0, 0, 0), waiting("job", "t", 2, 0, 1)), 0, (2,))
    assert sentence(record("start", question), "chat") == "passed over for job: batch had its floor share to come"


def test_who_is_spared_is_told_why() -> None:
    rows = (
        Running("chat", 0, 1, 0),
        Running("tired", 2, 1, 3),
        Running("owed", 2, 1, 0, True),
        Running("dear", 2, 900, 0),
        Running("cheap", 2, 1, 0),
    )
    it = record("preempt", PreemptQuestion("asker", 0, rows, 3))
    assert it.answer == "cheap"
    assert {row["request"]: row["why"] for row in rejected(it)} == {
        "chat": "not of a lower class",
        "tired": "made way 3 times already",
        "owed": "its slot is its class's floor share",
        "dear": "dearer to continue later: 900 tokens",
    }
    assert "makes way for asker" in sentence(it, "cheap")
    assert "cheap makes way" in sentence(it, "asker")


def test_a_swap_names_the_victims_and_why_others_stay() -> None:
    holders = (Holder("a", {"host": 9}, 1.0), Holder("b", {"host": 9}, 0.0, "pinned"), Holder("c", {"host": 9}, 5.0))
    it = record("evict", EvictQuestion("new", {"host": 9}, {"host": 0}, holders))
    assert sentence(it, "r") == "a makes way so that new can be loaded"
    assert [row["why"] for row in rejected(it)] == ["pinned", "dearer, or not needed: cost 5 s"]


@pytest.mark.parametrize("refusal", Refusal)
def test_every_refusal_has_words(refusal: Refusal) -> None:
    free = Occupancy(0, 1)
    question = AdmitQuestion("r", 0, 1, free, free, free, free)
    it = Record(0.0, "admit", ("r",), "m", question, refusal.value)
    assert sentence(it, "r") == f"refused: {REFUSED[refusal]}"


def test_everything_that_happens_to_a_request_can_be_said() -> None:
    it, batch, chat = ready(), job(BATCH), job(CHAT)
    it.on_request(batch, 0.0)
    it.on_request(chat, 0.0)
    it.why(chat, 0.0)
    it.on_parked(batch, 1.0)
    said = [sentence(record, chat.id) for record in it.journal.about(chat.id)]
    assert [line.split()[0] for line in said] == ["taken", "found", "waits:", "got"]
    assert "slot" in WAITS_FOR


def room(name: str, free: int, cost: float | None = None) -> EvictQuestion:
    """Ten bytes are wanted; with a cost somebody there may make way for them."""
    holders = () if cost is None else (Holder("old", {name: 10}, cost),)
    return EvictQuestion(f"m@{name}", {name: 10}, {name: free}, holders)


def test_a_place_that_was_not_chosen_has_a_reason() -> None:
    options = (
        Option("m@full", room("full", 0), fits_now=False),
        Option("m@dear", room("dear", 0, 1.0), fits_now=False),
        Option("m@soon", room("soon", 10), fits_now=False),
        Option("m@free", room("free", 10), fits_now=True),
        Option("m@last", room("last", 10), fits_now=True),
    )
    it = record("place", PlaceQuestion("m", options))
    assert sentence(it, "r") == "m is loaded as m@free, where that costs least"
    assert {row["place"]: row["why"] for row in rejected(it)} == {
        "m@full": "too little memory, whoever may make way",
        "m@dear": "old would have had to make way",
        "m@soon": "a model that is on its way out still holds the memory",
        "m@last": "not preferred",
    }


def test_a_copy_that_was_not_chosen_has_a_reason() -> None:
    copies = (Copy("a", 1, 4, 900, True), Copy("b", 3, 4, 900, True), Copy("c", 4, 4, 1, False))
    it = record("route", RouteQuestion("r", copies))
    assert sentence(it, "r") == "runs on b, the least busy of those with room for it"
    assert [row["why"] for row in rejected(it)] == ["1 of 4 slots free", "too few KV cells are free"]


def test_a_session_is_why_a_busier_copy_was_chosen() -> None:
    copies = (Copy("a", 1, 4, 900, True, knows=True), Copy("b", 3, 4, 900, True))
    assert sentence(record("route", RouteQuestion("r", copies)), "r") == "runs on a, where its session was"


@pytest.mark.parametrize("why", PARKED)
def test_who_lost_its_slot_is_told_why_it_waits_again(why: str) -> None:
    it, lost, other = ready(), job(BATCH), job(CHAT)
    it.on_request(lost, 0.0)
    it.on_request(other, 0.0)
    lost.parked_why = why
    it.on_parked(lost, 1.0)
    it.why(lost, 1.0)
    again = sentence(it.journal.about(lost.id)[-1], lost.id)
    assert again == f"waits again, as {PARKED[why]}: all slots of the model are taken"
