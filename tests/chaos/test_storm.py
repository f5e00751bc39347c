"""The judge of a chaos run: what it lets pass, and what it does not."""

from __future__ import annotations

import pytest

from inferd.tests.chaos.history import End, History, Piece
from inferd.tests.chaos.storm import judge
from inferd.tests.chaos.truths import of_fake, of_fakes

KEY = "fake 0"  # one token
KNOWN = of_fakes()
WHOLE = Piece(0, KNOWN[KEY].tokens, KNOWN[KEY].text)


def judged(*seen: Piece | End, blows_s: dict[str, list[float]] | None = None, may: tuple[str, ...] = ()) -> list[str]:
    return judge([History("r", 10.0, KEY, list(seen), "", frozenset(may))], KNOWN, blows_s or {})


def test_the_truth_of_a_fake_follows_from_its_prompt() -> None:
    assert len(of_fake("fake:tokens=7").tokens) == 7
    assert of_fake("a fake:tokens=7") != of_fake("b fake:tokens=7")
    assert of_fake("fake:tokens=7").text.startswith(of_fake("fake:tokens=7").text[:3])


def test_a_whole_answer_passes_and_a_lost_one_does_not() -> None:
    assert judged(WHOLE, End("", 1, 11.0)) == []
    assert judged(WHOLE)
    assert judged(WHOLE, WHOLE, End("", 1, 11.0))


@pytest.mark.parametrize(("blows_s", "passes"), [([10.5], False), ([10.5, 10.7], True), ([9.0, 10.5], False)])
def test_a_request_is_lost_with_its_second_worker_and_not_before(blows_s: list[float], passes: bool) -> None:
    found = judged(WHOLE, End("worker_crashed", 0, 11.0), blows_s={"small": blows_s})
    assert (found == []) is passes


def test_a_model_in_back_off_refuses_and_ends_nothing_that_has_begun() -> None:
    blows_s = {"small": [1.0, 2.0]}
    assert judged(End("model_failed", 0, 10.1), blows_s=blows_s) == []
    assert judged(WHOLE, End("model_failed", 0, 10.1), blows_s=blows_s)


def test_who_was_let_in_is_not_refused_any_more() -> None:
    assert judged(End("draining", 0, 10.1), may=("draining",)) == []
    assert judged(WHOLE, End("draining", 0, 10.1), may=("draining",)) == ["r: refused with draining after it had begun"]
