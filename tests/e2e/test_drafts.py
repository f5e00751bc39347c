"""A model with a smaller one beside it, in the real daemon."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from inferd import InferdError
from inferd.tests.e2e.daemons import until
from inferd.tests.models.random_gguf import Shape, write_random_gguf

if TYPE_CHECKING:
    from inferd.protos.answer import Timings
    from inferd.tests.e2e.daemons import Daemon, Launcher

pytestmark = pytest.mark.llama

LARGE = Shape(n_embd=256, n_layer=12, n_head=8, n_head_kv=2, n_ff=1024, n_awake=1)
CONFIG = """
[models.defaults]
slots = 2
threads = 1
context_tokens = 512
numerics = "exact"
[models.model.large]
draft_model = "small"
[models.model.mistaken]
draft_model = "stranger"
[models.model.lost]
draft_model = "nowhere"
"""


@pytest.fixture(scope="module")
def pairs(launcher: Launcher) -> Daemon:
    folder = launcher.models
    write_random_gguf(folder / "large.gguf", LARGE)
    write_random_gguf(folder / "small.gguf", replace(LARGE, n_layer=1))
    write_random_gguf(folder / "stranger.gguf", replace(LARGE, n_layer=1, n_vocab=600))
    for name in ("alone", "mistaken", "lost"):
        shutil.copy(folder / "large.gguf", folder / f"{name}.gguf")
    return launcher.start(CONFIG, name="pairs")


def answer(daemon: Daemon, model: str, seed: int) -> tuple[list[int], Timings]:
    prompt = [random.Random(seed).randrange(500) for _ in range(100)]
    answer = daemon.client.generate(model, prompt, max_tokens=60, temperature=0.3, seed=seed, ignore_eos=True)
    tokens = [token for delta in answer for token in delta.tokens]
    assert answer.timings is not None
    return tokens, answer.timings


def test_it_says_the_same_with_fewer_steps(pairs: Daemon) -> None:
    n_accepted = seed = 0
    while seed < 4 or (not n_accepted and seed < 40):  # where others want the cores, too, guessing may not pay at once
        tokens, timings = answer(pairs, "large", seed)
        assert tokens == answer(pairs, "alone", seed)[0]
        n_accepted, seed = n_accepted + timings.draft_n_accepted, seed + 1
    assert n_accepted > 0
    until(pairs.idle)


def test_its_bytes_are_in_the_plan_and_in_what_is_booked(pairs: Daemon) -> None:
    needs = {name: pairs.client.plan(name).pools[0].needed_bytes for name in ("large", "alone")}
    small_bytes = (pairs.log.parent / "models" / "small.gguf").stat().st_size
    assert needs["large"] - needs["alone"] > small_bytes
    pairs.client.load("large").wait()
    (row,) = [row for row in pairs.snapshot().models if row.name == "large"]
    assert row.bytes == needs["large"]


def test_other_words_are_refused_at_load_and_the_option_is_named(pairs: Daemon) -> None:
    with pytest.raises(InferdError, match="mistaken: draft_model: its vocabulary is not the model's") as caught:
        answer(pairs, "mistaken", 1)
    assert caught.value.code == "unsupported"
    with pytest.raises(InferdError, match="lost: draft_model: there is no model 'nowhere'") as caught:
        pairs.client.plan("lost")
    assert caught.value.code == "model_failed"
    until(pairs.idle)
