"""Pieces of an answer, and the limits of what is asked about jobs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.domain.durable import ENDED, Kept, Piece, State, check_key, check_listed, kept_of
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.tools import CallPiece

WORDS = st.lists(st.tuples(st.text("abä ", max_size=3), st.booleans()), max_size=12)


def refusal(check: object, *given_: object) -> InferdError:
    with pytest.raises(InferdError) as caught:
        check(*given_)  # type: ignore[operator]
    return caught.value


@given(WORDS, st.text("xy", max_size=2), st.integers(0, 3), st.integers(0, 20))
def test_what_one_reader_has_and_another_lacks_is_the_whole(
    words: list[tuple[str, bool]], tail: str, index: int, offset: int
) -> None:
    texts = [text for text, _ in words]
    calls = [(i, CallPiece(0, arguments=str(i))) for i, (_, calls) in enumerate(words) if calls]
    whole = Piece(index, list(range(len(words))), [len(it) for it in texts], "".join(texts) + tail, calls)
    rest, n = whole.since(offset), max(0, min(offset - index, len(words)))
    if rest is None:
        assert n == len(words)
        assert not tail or offset > whole.end
    else:
        assert rest.index == max(index, offset)
        assert (rest.tokens, rest.text) == (whole.tokens[n:], "".join(texts[n:]) + tail)
        assert [(at + n, call) for at, call in rest.calls] == [(at, call) for at, call in calls if at >= n]
        assert rest.end == whole.end


def test_logprobs_go_with_their_tokens() -> None:
    whole = Piece(4, [1, 2], [1, 1], "ab", [], ["first", "second"])  # type: ignore[list-item]
    rest = whole.since(5)
    assert rest == Piece(5, [2], [1], "b", [], ["second"])  # type: ignore[list-item]


def test_what_is_kept_is_summed_over_the_pieces() -> None:
    first = Piece(0, [7, 8], [1, 2], "abc", [(1, CallPiece(0, "i", "f", '{"a')), (1, CallPiece(1, "j", "g"))])
    last = Piece(2, [9], [1], "d", [(0, CallPiece(0, arguments='"}'))])
    assert kept_of([first, last]) == Kept([7, 8, 9], 4, {0: 5, 1: 0})
    assert kept_of([]) == Kept()


def test_ended_is_what_does_not_go_on() -> None:
    assert set(State) - ENDED == {State.QUEUED, State.RUNNING}


@pytest.mark.parametrize("key", ["", "k", "x" * 128, "ä" * 64])
def test_keys(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["x" * 129, "ä" * 65, "a\nb", "\0"])
def test_keys_that_are_none(key: str) -> None:
    assert refusal(check_key, key).field == "idempotency_key"


def test_lists_are_bounded() -> None:
    assert check_listed("", None) == (None, 100)
    assert check_listed("running", 1000) == (State.RUNNING, 1000)
    for state, limit, field in (("gone", None, "state"), ("", 0, "limit"), ("", 1001, "limit")):
        error = refusal(check_listed, state, limit)
        assert (error.code, error.field) == (Code.INVALID, field)
