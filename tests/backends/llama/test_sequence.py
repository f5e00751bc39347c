"""One running request: how far it is, what it says, and what a replay repeats."""

from __future__ import annotations

from inferd.backends.llama.sequence import Sequence
from inferd.backends.messages import SamplingParams, Submit
from inferd.backends.sampling import Sampler

PIECES = {4: b"ab", 5: "é".encode()[:1], 6: "é".encode()[1:], 7: b"aEN", 8: b"D"}


def sequence(tokens: list[int], n_prompt: int, stop: tuple[str, ...] = (), sent_bytes: int = 0) -> Sequence:
    params = SamplingParams(max_tokens=9, stop=stop)
    submit = Submit("a", 2, tokens, n_prompt, params, sent_bytes=sent_bytes)
    return Sequence(submit, 0, Sampler(params, (), (), 99), PIECES.__getitem__)


def test_a_prompt_is_decoding_once_it_is_computed_and_a_token_was_drawn() -> None:
    s = sequence([1, 2, 3], 3)
    assert (s.n_left, s.decoding, s.n_completion) == (3, False, 0)
    s.n_computed = 3
    assert (s.n_left, s.decoding) == (0, False)
    s.add(7)
    assert (s.n_left, s.decoding, s.n_completion) == (1, True, 1)


def test_a_prompt_of_one_token_is_not_decoding() -> None:
    assert not sequence([1], 1).decoding


def test_the_tokens_of_the_message_are_not_touched() -> None:
    tokens = [1, 2]
    sequence(tokens, 2).add(4)
    assert tokens == [1, 2]


def test_a_replay_repeats_nothing_and_loses_nothing() -> None:
    s = sequence([1, 2, 4, 5], 2, sent_bytes=1)
    s.replay()
    assert s.add(6) == "bé"
    assert s.tail() == ""


def test_a_replay_may_find_a_stop_string_it_had_begun() -> None:
    s = sequence([1, 2, 7], 2, stop=("END",), sent_bytes=1)
    s.replay()
    assert (s.add(8), s.text.stopped) == ("", True)


def test_what_is_held_comes_with_the_tail() -> None:
    s = sequence([1, 2], 2, stop=("END",))
    assert s.add(7) == "a"
    assert s.tail() == "EN"


def test_timings_are_zero_before_anything_ran() -> None:
    s = sequence([1], 1)
    assert s.timings_ms(5.0) == (0.0, 0.0)
    s.started_s, s.first_s = 1.0, 3.0
    assert s.timings_ms(5.0) == (2000.0, 2000.0)
