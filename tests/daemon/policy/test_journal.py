"""Records are kept for a while, found by request, and can be answered again."""

from __future__ import annotations

from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.policy.admission import AdmitQuestion, Occupancy
from inferd.daemon.policy.journal import CAPACITY, RULES, Journal, Record, recompute
from inferd.daemon.policy.turns import ClassQuestion, TurnQuestion, Waiting
from inferd.tests.daemon.policy.tools import as_json, job

QUESTION = TurnQuestion("m", (Waiting("a", "t", 1, 0.0, None, 0), Waiting("b", "u", 1, 5.0, None, 1)))


def record(*requests: str) -> Record:
    return Record(0.0, "start", requests, "m", QUESTION, "a")


def test_a_request_finds_its_decisions_and_the_turns_it_lost() -> None:
    journal = Journal()
    journal.note(record("a"))
    journal.note(record("z"))
    assert len(journal.about("a")) == 2
    assert len(journal.about("b")) == 2
    assert len(journal.about("z")) == 1
    assert journal.about("nobody") == []


def test_an_id_that_two_tenants_had_tells_each_its_own() -> None:
    journal, free = Journal(), Occupancy(0, 1)

    def admitted(tenant: str) -> Record:
        question = AdmitQuestion("a", 0, 1, free, free, free, free, tenant=tenant)
        return Record(0.0, "admit", ("a",), "m", question, None)

    records = [record("a"), admitted("t"), record("a"), admitted("u"), record("a"), record("a")]
    for one in records:
        journal.note(one)
    assert journal.about("a") == records
    assert journal.about("a", "t") == records[1:3]
    assert journal.about("a", "u") == records[3:]  # whose the first was nobody knows any more
    assert journal.about("a", "v") == []


def test_the_oldest_are_forgotten() -> None:
    journal = Journal()
    for i in range(CAPACITY + 5):
        journal.note(record(f"r{i}"))
    assert len(journal) == CAPACITY
    assert next(iter(journal)).requests == ("r5",)


def test_a_sink_sees_each_as_it_is_made() -> None:
    seen: list[Record] = []
    Journal(seen.append).note(record("a"))
    assert seen == [record("a")]


def test_a_question_is_answered_again_also_from_json() -> None:
    assert recompute("start", QUESTION) == recompute("start", as_json(QUESTION)) == "a"


def test_who_is_sent_away_is_noted_with_the_narrowest_reason() -> None:
    journal, one = Journal(), job()
    journal.note_end(one, InferdError(Code.OVERLOADED, "too busy", reason="shed"), 1.0)
    (kept,) = journal.about(one.id)
    assert (kept.kind, kept.answer, kept.question.message) == ("refuse", "shed", "too busy")  # type: ignore[union-attr]
    assert recompute("refuse", as_json(kept.question)) == "shed"


def test_a_move_is_answered_again_also_from_json() -> None:
    question = ClassQuestion("a", 2, 0, runs=False)
    assert recompute("priority", question) == recompute("priority", as_json(question)) == 0


def test_every_kind_has_a_question_and_a_rule() -> None:
    assert set(RULES) == {"admit", "queue", "start", "route", "preempt", "place", "evict", "refuse", "priority"}
