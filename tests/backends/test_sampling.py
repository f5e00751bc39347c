"""The sampling chain against plain definitions of its parts."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.backends.messages import SamplingParams
from inferd.backends.sampling import InvalidLogits, Sampler, greedy, log_sum, logprob, top, uniform

if TYPE_CHECKING:
    import numpy.typing as npt

    Row = npt.NDArray[np.float32]

OPEN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def row_of(n_vocab: int, seed: int = 0) -> Row:
    return np.random.default_rng(seed).standard_normal(n_vocab, dtype=np.float32) * 3


def sampler(n_vocab: int = 1000, eog: tuple[int, ...] = (), suppressed: tuple[int, ...] = (), **params: Any) -> Sampler:
    return Sampler(SamplingParams(max_tokens=9, **{**OPEN, **params}), eog, suppressed, n_vocab)


def reachable(draw: Sampler, row: Row, n: int = 400) -> set[int]:
    return {draw.sample(row.copy(), [], i) for i in range(n)}


def survivors(row: Row, top_k: int, top_p: float, min_p: float) -> set[int]:
    """top_k, top_p, min_p by the book, in float64 and with full sorts."""
    order = sorted(range(len(row)), key=lambda t: (-row[t], t))
    order = order[:top_k] if top_k else order
    weights = [math.exp(float(row[t]) - float(row[order[0]])) for t in order]
    kept, mass = [], 0.0
    for token, weight in zip(order, weights, strict=True):
        kept.append(token)
        mass += weight
        if mass >= top_p * sum(weights):
            break
    return {t for t in kept if row[t] >= row[kept[0]] + (math.log(min_p) if min_p else -math.inf)}


@pytest.mark.parametrize("n_vocab", [3, 64, 127, 1000, 20_011])
@pytest.mark.parametrize("k", [1, 2, 40])
def test_top_is_a_full_sort_cut_off(n_vocab: int, k: int) -> None:
    row = row_of(n_vocab)
    row[n_vocab // 2 :: 7] = 2.5  # ties go to the lower id
    ids, logits = top(row, k)
    assert ids.tolist() == sorted(range(n_vocab), key=lambda t: (-row[t], t))[:k]
    assert logits.tolist() == row[ids].tolist()


@pytest.mark.parametrize("top_k", [0, 1, 40, 5000])
@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.3])
@pytest.mark.parametrize("min_p", [0.0, 0.05, 1.0])
def test_only_what_survives_the_filters_is_kept(top_k: int, top_p: float, min_p: float) -> None:
    row = row_of(3000)
    ids, logits = sampler(3000, top_k=top_k, top_p=top_p, min_p=min_p)._keep(row)
    assert sorted(ids.tolist()) == sorted(survivors(row, top_k, top_p, min_p))
    assert logits.tolist() == row[ids].tolist()


def test_top_p_alone_looks_as_far_as_it_must() -> None:
    flat = np.zeros(5000, np.float32)
    ids, _ = sampler(5000, top_p=0.9)._keep(flat)
    assert len(ids) == 4500


def test_draws_follow_the_distribution() -> None:
    row = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    draw = sampler(3, seed=7)
    n = 4000
    counts = Counter(draw.sample(row.copy(), [], i) for i in range(n))
    assert all(abs(counts[t] / n - p) < 0.03 for t, p in enumerate((0.5, 0.3, 0.2)))


def test_temperature_sharpens() -> None:
    row = np.log(np.array([0.6, 0.4], np.float32))
    n = 2000
    cold = sum(sampler(2, temperature=0.25).sample(row.copy(), [], i) == 0 for i in range(n)) / n
    assert abs(cold - 0.6**4 / (0.6**4 + 0.4**4)) < 0.03


def test_the_coldest_temperature_is_greedy() -> None:
    row = row_of(500)
    assert reachable(sampler(500, temperature=1e-300), row, 5) == {int(row.argmax())}


def test_token_i_depends_on_seed_and_index_alone() -> None:
    row, draws = row_of(1000), [sampler(seed=5), sampler(seed=5), sampler(seed=6)]
    first, again, other = ([d.sample(row.copy(), [], i) for i in range(50)] for d in draws)
    assert first == again
    assert first[30:] == [sampler(seed=5).sample(row.copy(), [1, 2], i) for i in range(30, 50)]
    assert first != other


def test_uniform_is_spread_and_differs_between_neighbouring_seeds() -> None:
    values = [uniform(seed, index) for seed in (-1, 0, 1, 2**63) for index in range(500)]
    assert all(0 <= v < 1 for v in values)
    assert len(set(values)) == len(values)
    assert abs(sum(values) / len(values) - 0.5) < 0.03


def test_greedy_takes_the_best_after_bias_and_penalties() -> None:
    row = np.array([1.0, 3.0, 2.9, -1.0], np.float32)
    assert sampler(4, temperature=0.0).sample(row.copy(), [], 0) == 1
    assert sampler(4, temperature=0.0, logit_bias={3: 10.0, 99: 50.0}).sample(row.copy(), [], 0) == 3
    assert sampler(4, temperature=0.0, presence_penalty=0.2).sample(row.copy(), [1, 1], 0) == 2


def test_penalties_are_llama_cpps() -> None:
    row = np.array([2.0, -2.0, 1.0, 0.5], np.float32)
    draw = sampler(4, repeat_penalty=2.0, presence_penalty=0.25, frequency_penalty=0.5)
    draw._adjust(row, [0, 0, 1])
    assert row.tolist() == [2.0 / 2 - 2 * 0.5 - 0.25, -2.0 * 2 - 0.5 - 0.25, 1.0, 0.5]


def test_penalties_look_64_tokens_back() -> None:
    row = np.array([2.0, 1.0, -9.0], np.float32)
    draw = sampler(3, temperature=0.0, presence_penalty=5.0)
    assert draw.sample(row.copy(), [0] + [2] * 63, 0) == 1
    assert draw.sample(row.copy(), [0] + [2] * 64, 0) == 0


def test_end_tokens_wait_for_min_tokens_and_never_come_with_ignore_eos() -> None:
    row = np.array([9.0, 1.0, 2.0], np.float32)
    early = sampler(3, eog=(0,), temperature=0.0, min_tokens=2)
    assert [early.sample(row.copy(), [], i) for i in range(3)] == [2, 2, 0]
    assert sampler(3, eog=(0,), temperature=0.0, ignore_eos=True).sample(row.copy(), [], 8) == 2


def test_suppressed_tokens_are_never_drawn() -> None:
    assert 0 not in reachable(sampler(3, suppressed=(0,)), np.array([3.0, 1.0, 1.0], np.float32))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("params", [{"temperature": 0.0}, {"top_k": 40}, {}, {"top_p": 0.9}, {"min_p": 0.1}])
def test_invalid_numbers_are_refused(bad: float, params: dict[str, Any]) -> None:
    row = row_of(9000)
    row[4321] = bad
    with pytest.raises(InvalidLogits):
        sampler(9000, **params).sample(row, [], 0)


def test_nothing_left_to_draw_is_refused() -> None:
    with pytest.raises(InvalidLogits):
        greedy(np.full(5, -np.inf, np.float32))


def test_log_sum_normalises() -> None:
    row = row_of(5000)
    assert abs(np.exp(row.astype(np.float64) - log_sum(row)).sum() - 1) < 1e-5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(100, 9000), st.integers(1, 300))
def test_top_agrees_with_sorting_on_random_rows(seed: int, n_vocab: int, k: int) -> None:
    row = np.round(row_of(n_vocab, seed), 1)
    assert top(row, k)[0].tolist() == np.lexsort((np.arange(n_vocab), -row))[:k].tolist()


def test_a_logprob_comes_with_its_alternatives_best_first() -> None:
    row = np.log(np.array([0.2, 0.5, 0.3], np.float32))
    told = logprob(row, 0, 2, lambda token: b"abc"[token : token + 1])
    assert (told.token, told.text) == (0, "a")
    assert np.exp(told.logprob) == pytest.approx(0.2)
    assert [(token, text) for token, _, text in told.top] == [(1, "b"), (2, "c")]
    assert np.exp([value for _, value, _ in told.top]) == pytest.approx([0.5, 0.3])


@pytest.mark.parametrize("drift", [0.0, 0.05, 3.0])
def test_what_was_learnt_from_the_tokens_before_changes_no_draw(drift: float) -> None:
    rows = [row_of(9000, seed) * (1 + drift * np.float32(seed % 5)) for seed in range(60)]
    one = sampler(9000, top_k=40, top_p=0.9, seed=3)
    drawn = [one.sample(row.copy(), [], i) for i, row in enumerate(rows)]
    fresh = [sampler(9000, top_k=40, top_p=0.9, seed=3).sample(row.copy(), [], i) for i, row in enumerate(rows)]
    assert drawn == fresh


def test_where_all_but_a_few_are_ruled_out_the_few_are_kept() -> None:
    row = np.full(9000, -np.inf, np.float32)
    row[[5, 8000]] = [1.0, 2.0]
    ids, logits = top(row, 40)
    assert (ids.tolist(), logits.tolist()) == ([8000, 5], [2.0, 1.0])
    assert reachable(sampler(9000, top_k=40), row, 50) == {5, 8000}


def test_a_row_gone_wrong_is_refused_also_after_good_ones() -> None:
    one = sampler(9000, top_k=40)
    one.sample(row_of(9000), [], 0)
    for bad in (math.nan, math.inf):
        with pytest.raises(InvalidLogits):
            one.sample(np.full(9000, bad, np.float32), [], 1)
