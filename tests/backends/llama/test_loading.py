"""Loading a model: what is said of it, and why it is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.backends.engine import LoadError
from inferd.backends.kinds import read_facts
from inferd.backends.llama.binding import Model
from inferd.backends.llama.loading import load_generator as load
from inferd.tests.models.random_gguf import SHAPES, Shape, write_random_gguf

from .engines import plan

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.llama


def test_ready_says_what_was_loaded(tiny_model: Path) -> None:
    seen: list[float] = []
    engine = load(plan(tiny_model), seen.append)
    ready = engine.ready
    assert (ready.n_ctx, ready.n_slots, ready.kv_cells, ready.n_vocab, ready.device) == (512, 4, 2048, 512, "CPU")
    assert ready.buffers["CPU KV"] > 0
    assert "CPU compute" in ready.buffers
    assert seen[-1] == 1.0
    engine.close()


@pytest.mark.parametrize("changes", [{"kv_layout": "split"}, {"flash_attention": False}, {"n_gpu_layers": -1}])
def test_exact_has_its_conditions(tiny_model: Path, changes: dict[str, object]) -> None:
    with pytest.raises(LoadError, match="numerics = exact") as error:
        load(plan(tiny_model, numerics="exact", **changes), lambda _: None)
    assert error.value.code == "unsupported"


@pytest.mark.parametrize("quant", ["f32", "f16"])
def test_exact_needs_quantized_weights(tmp_path: Path, quant: str) -> None:
    path = write_random_gguf(tmp_path / "m.gguf", SHAPES["tiny"], quant)
    with pytest.raises(LoadError, match="quantized weights") as error:
        load(plan(path, numerics="exact"), lambda _: None)
    assert error.value.code == "unsupported"
    load(plan(path), lambda _: None).close()


def test_a_device_that_is_not_there_is_unsupported(tiny_model: Path) -> None:
    with pytest.raises(LoadError, match="finds no device CUDA0") as error:
        load(plan(tiny_model, n_gpu_layers=-1, devices=("gpu0",), device_names=("CUDA0",)), lambda _: None)
    assert error.value.code == "unsupported"


def test_a_kv_type_the_model_cannot_have_is_unsupported(tiny_model: Path) -> None:
    with pytest.raises(LoadError, match="block size") as error:  # 16 wide heads, blocks of 32
        load(plan(tiny_model, kv_type="q8_0"), lambda _: None)
    assert error.value.code == "unsupported"


@pytest.mark.parametrize("keep_bytes", [0, 10, 5000])
def test_a_broken_file_is_corrupt_and_tells_no_paths(tiny_model: Path, tmp_path: Path, keep_bytes: int) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(tiny_model.read_bytes()[:keep_bytes])
    with pytest.raises(LoadError) as error:
        load(plan(path), lambda _: None)
    assert error.value.code == "corrupt"
    assert str(tmp_path) not in str(error.value)


def test_an_unreadable_progress_receiver_ends_the_load(tiny_model: Path) -> None:
    def gone(_: float) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        load(plan(tiny_model), gone)


def test_a_small_model_is_loaded_beside_it(tiny_model: Path) -> None:
    seen: list[float] = []
    alone, both = (
        load(plan(tiny_model), lambda _: None),
        load(plan(tiny_model, n_draft=15, draft=read_facts(tiny_model)), seen.append),
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert both._guesser._drafter is not None
    alone.close()
    both.close()


def test_a_small_model_with_other_words_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    other = write_random_gguf(tmp_path / "other.gguf", Shape(n_layer=1, n_vocab=600))
    with pytest.raises(LoadError, match="draft_model: its vocabulary is not the model's: token 509 is") as error:
        load(plan(tiny_model, n_draft=15, draft=read_facts(other)), lambda _: None)
    assert error.value.code == "unsupported"


def test_a_small_model_that_is_broken_is_named(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(tiny_model.read_bytes())
    facts = read_facts(path)
    path.write_bytes(tiny_model.read_bytes()[:5000])
    with pytest.raises(LoadError, match=r"^draft_model: ") as error:
        load(plan(tiny_model, n_draft=15, draft=facts), lambda _: None)
    assert error.value.code == "corrupt"
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("which", ["large", "small"])
def test_states_that_cannot_be_taken_back(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    """No file of such a model is made here; what llama.cpp says of it is."""
    n_asked = 0

    def is_recurrent(_: Model) -> bool:
        nonlocal n_asked
        n_asked += 1
        return which == "large" or n_asked > 2

    monkeypatch.setattr(Model, "is_recurrent", property(is_recurrent))
    asked = plan(tiny_model, n_draft=15, draft=read_facts(tiny_model))
    if which == "large":
        engine = load(asked, lambda _: None)
        assert engine._guesser._drafter is None
        engine.close()
    else:
        with pytest.raises(LoadError, match="draft_model: only models"):
            load(asked, lambda _: None)
