"""Each validator catches the fault that was planted for it, and an honest history passes."""

from __future__ import annotations

import msgspec
import pytest

from inferd.tests.chaos.history import End, History, Piece, Truth, excuse, faults, line, read

TRUTH = Truth([7, 8, 9, 10], "abcd")
HONEST: list[Piece | End] = [Piece(0, [7], "a"), Piece(1, [8, 9], "bc"), Piece(3, [10], "d"), End("", 4, 2.0)]


def history(*seen: Piece | End, left: str = "", may: frozenset[str] = frozenset()) -> History:
    return History("r", 1.0, "k", list(seen), left, may)


def test_an_honest_history_has_no_fault() -> None:
    assert faults(history(*HONEST), TRUTH) == []
    assert faults(history(*HONEST), None) == []


def test_a_last_message_may_bring_text_alone() -> None:
    assert faults(history(Piece(0, [7, 8, 9, 10], "abc"), Piece(4, [], "d"), End("", 4, 2.0)), TRUTH) == []


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        ([HONEST[0], Piece(2, [9, 10], "cd"), End("", 3, 2.0)], "a gap"),
        ([HONEST[0], HONEST[0], *HONEST[1:]], "a repetition"),
        ([*HONEST, End("", 4, 2.0)], "2 ends"),
        ([*HONEST, End("cancelled", 4, 2.0)], "2 ends"),
        (HONEST[:-1], "0 ends"),
        ([*HONEST[:-1], End("", 3, 2.0)], "the end says 3"),
        ([*HONEST, Piece(4, [11], "e")], "after the end"),
        ([*HONEST[:2], End("internal", 0, 2.0)], "ended with internal"),
    ],
)
def test_a_fault_in_the_order_is_caught_without_a_truth(seen: list[Piece | End], fault: str) -> None:
    assert any(fault in found for found in faults(history(*seen), None))


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        ([Piece(0, [8, 7, 9, 10], "bacd"), End("", 4, 2.0)], "wrong tokens from 0 on"),
        ([Piece(0, [7, 8, 9], "abc"), End("", 3, 2.0)], "wrong tokens from 3 on"),
        ([Piece(0, [7, 8, 9, 10], "aBcd"), End("", 4, 2.0)], "the text is not"),
        ([Piece(0, [7, 8, 9, 10], "abc"), End("", 4, 2.0)], "the text is not"),
        ([Piece(0, [7, 9], "ac"), End("cancelled", 0, 2.0)], "wrong tokens from 1 on"),
    ],
)
def test_a_lie_is_caught_by_the_truth(seen: list[Piece | End], fault: str) -> None:
    found = faults(history(*seen, may=frozenset(["cancelled"])), TRUTH)
    assert any(fault in one for one in found)


def test_who_leaves_early_needs_no_end_but_gets_no_second_one() -> None:
    assert faults(history(*HONEST[:2], left="killed"), TRUTH) == []
    assert (
        faults(history(*HONEST[:2], End("cancelled", 0, 2.0), left="cancel", may=frozenset(["cancelled"])), TRUTH) == []
    )
    twice = history(*HONEST[:2], *[End("cancelled", 0, 2.0)] * 2, left="cancel", may=frozenset(["cancelled"]))
    assert any("2 ends" in fault for fault in faults(twice, TRUTH))


def test_an_error_is_excused_by_two_blows_and_no_fewer() -> None:
    def after(*blows_s: float, before_s: float = 0.0) -> list[str]:
        lost = history(*HONEST[:2], End("worker_crashed", 0, 5.0))
        excuse(lost, ["worker_crashed"], blows_s, before_s=before_s)
        return faults(lost, TRUTH)

    assert after(2.0)
    assert after(0.5, 2.0)  # the first was before it came
    assert after(2.0, 6.0)
    assert not after(0.5, 2.0, 3.0)
    assert not after(0.5, 2.0, before_s=1.0)


def test_what_is_written_is_read_up_to_where_the_client_was_killed() -> None:
    written = [line("ask", "r", 1.0, "k", ["deadline"]), *(line("got", "r", *fields(one)) for one in HONEST[:2])]
    honest = read(written)["r"]
    assert (honest.asked_s, honest.key, honest.may, honest.seen) == (1.0, "k", frozenset(["deadline"]), HONEST[:2])
    assert any("0 ends" in fault for fault in faults(honest, TRUTH))
    killed = read([*written, b'["end","r","",4'], killed=True)["r"]
    assert faults(killed, TRUTH) == []
    ended = read([*written, line("end", "r", "", 3, 2.0), line("cancel", "r")])["r"]
    assert (ended.ends, ended.left) == ([End("", 3, 2.0)], "cancel")


def fields(piece: Piece | End) -> tuple[object, ...]:
    assert isinstance(piece, Piece)
    return msgspec.to_builtins((piece.index, piece.tokens, piece.text))  # type: ignore[no-any-return]
