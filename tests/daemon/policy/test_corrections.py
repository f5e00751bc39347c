"""What past loads teach about the next one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.facts import HOST, Footprint, LoadPlan, ModelFacts
from inferd.daemon.policy import corrections
from inferd.daemon.policy.corrections import LEAST, MOST, N_KEYS, N_LOADS, Corrections, host_bytes, key

MIB = 1 << 20
BYTES = st.integers(0, 2**40)
LOADS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["host", "gpu0"]), BYTES, BYTES), max_size=20)


def seen(*loads: tuple[str, str, int, int]) -> Corrections:
    it = Corrections()
    for model, pool, estimated, observed in loads:
        it.observe(model, pool, estimated, observed)
    return it


# the next estimate


def test_nothing_is_changed_before_anything_was_seen() -> None:
    assert Corrections().apply("m", {"host": 100, "gpu0": 7}) == {"host": 100, "gpu0": 7}
    assert Corrections().error("m") == {}


def test_what_was_missed_once_is_added_to_the_next_load_of_any_context() -> None:
    it = seen(("m", "host", 400 * MIB, 430 * MIB))
    assert it.apply("m", {"host": 400 * MIB}) == {"host": 430 * MIB}
    assert it.apply("m", {"host": 900 * MIB}) == {"host": 930 * MIB}


def test_pools_and_models_are_apart() -> None:
    it = seen(("m", "host", 100, 110), ("m", "gpu0", 1000, 900), ("n", "host", 100, 150))
    assert it.apply("m", {"host": 100, "gpu0": 1000, "gpu1": 5}) == {"host": 110, "gpu0": 900, "gpu1": 5}
    assert it.apply("n", {"host": 100, "gpu0": 1000}) == {"host": 150, "gpu0": 1000}


def test_one_odd_load_among_others_does_not_decide() -> None:
    it = seen(("m", "host", 100, 110), ("m", "host", 100, 290), ("m", "host", 100, 112))
    assert it.apply("m", {"host": 100}) == {"host": 112}


def test_of_two_loads_the_larger_counts() -> None:
    assert seen(("m", "host", 100, 130), ("m", "host", 100, 110)).apply("m", {"host": 100}) == {"host": 130}


def test_what_is_long_ago_is_forgotten() -> None:
    it = seen(("m", "host", 100, 150), *[("m", "host", 100, 110)] * N_LOADS)
    assert it.to_builtins() == {"m": {"host": [[100, 110]] * N_LOADS}}


@given(loads=LOADS, bytes_on=st.dictionaries(st.sampled_from(["host", "gpu0", "gpu1"]), BYTES))
def test_a_correction_is_bounded(loads: list[tuple[str, str, int, int]], bytes_on: dict[str, int]) -> None:
    corrected = seen(*loads).apply("a", bytes_on)
    assert corrected.keys() == bytes_on.keys()
    for pool, n_bytes in bytes_on.items():
        assert LEAST * n_bytes - 1 <= corrected[pool] <= MOST * n_bytes + 1


@given(estimated=st.integers(1, 2**40), factor=st.floats(LEAST, MOST))
def test_within_the_bounds_the_same_load_is_then_estimated_as_it_was(estimated: int, factor: float) -> None:
    observed = round(estimated * factor)
    assert seen(("m", "host", estimated, observed)).apply("m", {"host": estimated})["host"] == pytest.approx(
        observed, 1
    )


# one load, seen again and again


def test_of_one_load_the_most_that_was_seen_counts_as_one() -> None:
    it = Corrections()
    for observed in (90, 120, 115):
        it.observe("m", "host", 100, observed, "pid 7")
    assert it.to_builtins() == {"m": {"host": [[100, 120]]}}
    it.observe("m", "host", 100, 80, "pid 8")
    assert it.to_builtins() == {"m": {"host": [[100, 120], [100, 80]]}}


def test_a_load_of_an_earlier_daemon_is_never_taken_for_this_one() -> None:
    it = Corrections()
    it.observe("m", "host", 100, 120, "pid 7")
    later = Corrections.from_builtins(it.to_builtins())
    later.observe("m", "host", 100, 130, "pid 7")
    assert later.to_builtins() == {"m": {"host": [[100, 120], [100, 130]]}}


def test_a_load_not_used_to_the_full_teaches_only_that_more_is_needed() -> None:
    it = seen(("m", "host", 100, 110))
    it.observe("m", "host", 100, 109, "pid 7", full=False)
    assert it.to_builtins() == {"m": {"host": [[100, 110]]}}
    it.observe("m", "host", 100, 130, "pid 7", full=False)
    assert it.apply("m", {"host": 100}) == {"host": 130}
    it.observe("m", "host", 100, 131, "pid 7")
    assert it.to_builtins() == {"m": {"host": [[100, 110], [100, 131]]}}


# for display


def test_the_error_is_that_of_the_last_load() -> None:
    it = seen(("m", "host", 100, 50), ("m", "host", 110, 100), ("m", "gpu0", 95, 100), ("m", "gpu1", 5, 0))
    assert it.error("m") == {"host": pytest.approx(0.1), "gpu0": pytest.approx(-0.05)}


# over restarts


@given(loads=LOADS)
def test_saved_and_read_again_it_says_the_same(loads: list[tuple[str, str, int, int]]) -> None:
    it = seen(*loads)
    again = Corrections.from_builtins(json.loads(json.dumps(it.to_builtins())))
    assert again.to_builtins() == it.to_builtins()
    for model in "abc":
        assert again.apply(model, {"host": 1000, "gpu0": 10}) == it.apply(model, {"host": 1000, "gpu0": 10})


@pytest.mark.parametrize(
    "value",
    [None, 7, [], {"m": 1}, {"m": {"host": [[1]]}}, {"m": {"host": [["a", 2]]}}, {"m": {"host": [[1, -2]]}}, {1: {}}],
)
def test_anything_else_is_as_good_as_nothing(value: object) -> None:
    assert Corrections.from_builtins(value).to_builtins() == {}


def test_the_models_not_loaded_for_longest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrections, "N_KEYS", 2)
    it = seen(("a", "host", 1, 1), ("b", "host", 1, 1), ("a", "host", 1, 1), ("c", "host", 1, 1))
    assert set(it.to_builtins()) == {"a", "c"}
    many = {str(i): {"host": [[1, 2]]} for i in range(5)}
    assert set(Corrections.from_builtins(many).to_builtins()) == {"3", "4"}
    assert N_KEYS > 2


# which loads share one


def facts(**changes: Any) -> ModelFacts:
    known: dict[str, Any] = {"backend": "llama", "path": "/models/m.gguf", "file_bytes": 1000, "architecture": "llama"}
    known |= {"quantization": "Q8_0", "n_params": 1, "n_layers": 1, "n_embd": 1, "n_heads": 1, "n_kv_heads": 1}
    known |= {"k_head_dim": 1, "v_head_dim": 1, "n_ctx_train": 4096, "n_vocab": 1}
    return ModelFacts(**(known | changes))


def plan(**changes: Any) -> LoadPlan:
    known: dict[str, Any] = {"backend": "llama", "path": "/models/m.gguf", "n_ctx": 4096, "n_slots": 4}
    return LoadPlan(**(known | {"kv_cells": 4096, "n_threads": 2} | changes))


@pytest.mark.parametrize("changes", [{"n_ctx": 512}, {"kv_cells": 8192}, {"n_slots": 8}, {"kv_type": "q8_0"}])
def test_contexts_and_slots_share_one(changes: dict[str, Any]) -> None:
    assert key(facts(), plan(**changes)) == key(facts(), plan())
    assert key(facts(path="/elsewhere/m.gguf"), plan()) == key(facts(), plan())


@pytest.mark.parametrize(
    "changes",
    [
        {"numerics": "exact"},
        {"use_mmap": False},
        {"n_gpu_layers": -1, "devices": ("gpu0",)},
        {"n_ubatch": 256},
        {"pooling": "mean"},
        {"flash_attention": False},
        {"draft": facts(path="/models/small.gguf")},
    ],
)
def test_what_makes_other_buffers_does_not(changes: dict[str, Any]) -> None:
    assert key(facts(), plan(**changes)) != key(facts(), plan())


@pytest.mark.parametrize("changes", [{"path": "/models/n.gguf"}, {"file_bytes": 1001}])
def test_another_file_does_not(changes: dict[str, Any]) -> None:
    assert key(facts(**changes), plan()) != key(facts(), plan())


# what a reading means


@pytest.mark.parametrize(
    ("cells_used", "expected"), [(0, 90 + 16 + 400), (1024, 90 + 12 + 400), (4096, 490), (9999, 490)]
)
def test_buffers_that_no_cell_has_needed_yet_are_still_to_come(cells_used: int, expected: int) -> None:
    price = Footprint(
        bytes_on={HOST: 500}, weights_bytes=380, kv_bytes=50, compute_bytes=70, host_anon_bytes=100, host_late_bytes=16
    )
    assert host_bytes(price, plan(), 90, cells_used) == expected


def test_a_load_that_was_ended_for_want_of_memory_outweighs_all_before() -> None:
    known = Corrections()
    for _ in range(N_LOADS):
        known.observe("k", "host", 100, 90)
    known.observe("k", "gpu0", 50, 55)
    known.starved("k", "host", 100, 160)
    assert known.apply("k", {"host": 100, "gpu0": 50}) == {"host": 160, "gpu0": 55}
    known.observe("k", "host", 100, 110)  # and is outweighed in turn
    known.observe("k", "host", 100, 110)
    assert known.offset_bytes("k", "host") == 10
