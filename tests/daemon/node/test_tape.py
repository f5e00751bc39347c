"""The stream of a job that is kept: pieces from which any token's text can be told, and nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.messages import FinishReason, SamplingParams, TokenLogprob
from inferd.daemon.domain.durable import Kept, kept_of
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.request import Job, Priority, Request
from inferd.daemon.domain.tools import CallPiece
from inferd.daemon.node.stream import MAX_MERGED_TOKENS, Finished, Queued
from inferd.daemon.node.tape import Tape

if TYPE_CHECKING:
    from inferd.daemon.domain.durable import Piece

REQUEST = Request("r", "m", SamplingParams(max_tokens=1), Priority.BATCH, "t", prompt="x")
END = Finished(FinishReason.STOP, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0)


def tape(kept: Kept = Kept()) -> Tape:  # noqa: B008
    return Tape(Job(REQUEST, 0.0, 0), kept)


def say(it: Tape, index: int, *words: str, last: str = "") -> None:
    for i, word in enumerate(words):
        it.push_text(index + i, word, [index + i], None)
    if last:
        it.push_text(index + len(words), last, (), None)


def all_text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_the_last_token_stays_until_the_end() -> None:
    it = tape()
    assert it.wind(whole=False) == []
    say(it, 0, "a", "b", "c")
    (first,) = it.wind(whole=False)
    assert (first.tokens, first.text, first.lengths) == ([0, 1], "ab", [1, 1])
    assert it.wind(whole=False) == []
    it.push_text(3, "!", (), None)  # held back until the end was known
    (last,) = it.wind(whole=True)
    assert (last.index, last.tokens, last.text, last.lengths) == (2, [2], "c!", [2])


def test_the_text_of_tokens_that_came_together_is_that_of_the_last() -> None:
    it = tape()
    it.push_text(0, "ab", [5, 6], None)
    (piece,) = it.wind(whole=True)
    assert piece.lengths == [0, 2]


def test_a_text_without_tokens_is_the_end_of_the_piece() -> None:
    it = tape(Kept([1], 1))
    it.push_text(1, "ab", (), None)
    (piece,) = it.wind(whole=True)
    assert (piece.index, piece.tokens, piece.lengths, piece.text) == (1, [], [], "b")


def test_what_says_nothing_is_no_piece() -> None:
    it = tape(Kept([1], 2))
    it.push_text(1, "ab", (), None)
    assert it.wind(whole=True) == []


def test_long_answers_are_several_pieces() -> None:
    it = tape()
    say(it, 0, *"a" * (2 * MAX_MERGED_TOKENS + 1), last="!")
    pieces = it.wind(whole=True)
    assert [piece.index for piece in pieces] == [0, MAX_MERGED_TOKENS, 2 * MAX_MERGED_TOKENS]
    assert pieces[-1].text == "a!"


def test_logprobs_and_calls_stand_at_their_tokens() -> None:
    it = tape()
    it.push_text(0, "a", [0], [TokenLogprob(0, -1.0, "a")])
    it.push_text(1, "", [1], [TokenLogprob(1, -2.0, "b")], [CallPiece(0, "i", "f")])
    it.push_text(2, "", (), None, [CallPiece(0, arguments="{}")])
    (piece,) = it.wind(whole=True)
    assert piece.calls == [(1, CallPiece(0, "i", "f")), (1, CallPiece(0, arguments="{}"))]
    assert [entry.token for entry in piece.logprobs or ()] == [0, 1]


def test_a_call_of_which_a_part_is_kept_goes_on() -> None:
    it = tape(Kept([0, 1], 0, {0: 3, 1: 0}))
    it.push_text(2, "", [2], None, [CallPiece(0, "i", "f", '{"a"'), CallPiece(1, "j", "g"), CallPiece(2, "k", "h")])
    it.push_text(3, "", [3], None, [CallPiece(0, arguments=":1}"), CallPiece(1, arguments="{}")])
    (piece,) = it.wind(whole=True)
    assert [call for _, call in piece.calls] == [
        CallPiece(0, arguments='"'),
        CallPiece(2, "k", "h"),
        CallPiece(0, arguments=":1}"),
        CallPiece(1, arguments="{}"),
    ]


def test_how_it_ended_is_remembered_and_told_once() -> None:
    it, told = tape(), []
    it.on_over = lambda: told.append(it.over)
    it.push(Queued("r", 0, "slot"))
    it.push(END)
    it.close()
    it.close(InferdError(Code.CANCELLED, "too late"))
    it.push_text(0, "late", [0], None)
    assert (it.finished, it.error, told) == (END, None, [True])
    assert it.wind(whole=True) == []


def test_it_never_stands_still() -> None:
    it = tape()
    say(it, 0, "a")
    assert it.stalled_s(1e9) == 0.0


@given(
    st.lists(st.text("abä", max_size=3), min_size=1, max_size=20),
    st.text("x", max_size=2),
    st.lists(st.integers(0, 20), max_size=3),
)
def test_an_answer_that_is_cut_anywhere_goes_on_without_a_gap_or_a_repeat(
    words: list[str], tail: str, cuts: list[int]
) -> None:
    pieces: list[Piece] = []
    for cut in [*sorted(cut for cut in cuts if cut < len(words)), len(words)]:
        kept = kept_of(pieces)
        n_kept, it = len(kept.tokens), tape(kept)
        ends = cut == len(words)
        for i in range(n_kept, cut):  # the first new token brings all text up to it
            text = "".join(words[: i + 1]) if i == n_kept else words[i]
            it.push_text(i, text, [i], None)
            if i % 3 == 0:
                pieces += it.wind(whole=False)
        if ends and tail:
            it.push_text(cut, tail, (), None)
        pieces += it.wind(whole=ends)
    assert [token for piece in pieces for token in piece.tokens] == list(range(len(words)))
    assert all_text(pieces) == "".join(words) + tail
    assert [piece.index for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
