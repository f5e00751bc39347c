"""Loading a model: what is said of it, and why it is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.backends.engine import LoadError
from inferd.backends.llama.loading import load

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
