"""Text of a token stream: always valid, never past a stop string, the same however it is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.text import TextStream


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(marks)]


def before_stop(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """Brute force: read letter by letter until some stop string is complete, the longest if several are."""
    for end in range(1, len(text) + 1):
        found = [s for s in stop if text[:end].endswith(s)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


def run(pieces: list[bytes], stop: tuple[str, ...] = (), sent_bytes: int = 0) -> tuple[str, bool]:
    stream = TextStream(stop, sent_bytes=sent_bytes)
    text = "".join(stream.feed(piece) for piece in pieces) + stream.flush()
    return text, stream.stopped


places = st.lists(st.integers(0, 200), max_size=20)
letters = st.text("abé😀", max_size=40)
stops = st.lists(st.text("abé😀", min_size=1, max_size=4), max_size=3).map(tuple)


@given(st.binary(max_size=60), places)
def test_any_bytes_cut_anyhow_are_what_decoding_at_once_gives(data: bytes, where: list[int]) -> None:
    assert run(cut(data, where)) == (data.decode(errors="replace"), False)


@given(letters, places, stops)
def test_stop_strings_cut_the_text_like_reading_letter_by_letter(
    text: str, where: list[int], stop: tuple[str, ...]
) -> None:
    assert run(cut(text.encode(), where), stop) == before_stop(text, stop)


@given(letters, places, stops, places, st.integers(0, 100))
def test_a_replay_sends_exactly_what_is_missing(
    text: str, where: list[int], stop: tuple[str, ...], elsewhere: list[int], n_sent: int
) -> None:
    stream = TextStream(stop)
    pieces = cut(text.encode(), where)
    sent = "".join(stream.feed(piece) for piece in pieces[: n_sent % (len(pieces) + 1)])
    again, _ = run(cut(text.encode(), elsewhere), stop, sent_bytes=len(sent.encode()))
    assert sent + again == before_stop(text, stop)[0]


@given(letters, places, stops)
def test_nothing_follows_a_stop(text: str, where: list[int], stop: tuple[str, ...]) -> None:
    stream = TextStream(stop)
    for piece in cut(text.encode(), where):
        was_stopped = stream.stopped
        assert not (stream.feed(piece) and was_stopped)


def test_a_split_code_point_waits_for_its_rest() -> None:
    stream = TextStream()
    assert [stream.feed(piece) for piece in (b"a\xf0\x9f", b"\x98", b"\x80b")] == ["a", "", "😀b"]


def test_a_code_point_that_never_ends_is_replaced() -> None:
    assert run([b"a\xe2\x82"]) == ("a\ufffd", False)


def test_the_beginning_of_a_stop_string_is_held_and_let_go() -> None:
    stream = TextStream(("</end>",))
    assert [stream.feed(piece) for piece in (b"a</", b"e", b"m>")] == ["a", "", "</em>"]


def test_the_stop_string_that_is_complete_first_wins() -> None:
    assert run([b"xabcd"], ("abcd", "bc")) == ("xa", True)


def test_of_two_that_end_together_the_longer_wins() -> None:
    assert run([b"xabc"], ("bc", "abc")) == ("x", True)


@pytest.mark.parametrize("stop", [(), ("",)])
def test_an_empty_stop_string_stops_nothing(stop: tuple[str, ...]) -> None:
    assert run([b"abc"], stop) == ("abc", False)
