"""The door to llama.cpp: vocabulary, batches, cells, and its words when it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from inferd.backends.llama.binding import Aborted, BindingError, Context, ContextShape, Model, log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.llama


def shape(n_cells: int = 256, n_seqs: int = 3, **changes: object) -> ContextShape:
    given = {"n_ubatch": 64, "n_threads": 1, "kv_type": "f16", "unified": True, "flash_attention": None, **changes}
    return ContextShape(n_cells=n_cells, n_seqs=n_seqs, n_outputs=n_seqs, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Iterator[Model]:
    model = Model(str(tiny_model))
    yield model
    model.close()


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    context = Context(model, shape())
    yield context
    context.close()


def compute(context: Context, *rows: tuple[int, int, list[int]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    context.batch.clear()
    for seq, pos, tokens in rows:
        context.batch.add(seq, pos, tokens, n_wanted=1)
    assert context.decode()
    return context.logits().copy()


def test_only_a_vocabulary_can_be_loaded(tiny_model: Path) -> None:
    model = Model(str(tiny_model), vocab_only=True)
    assert model.vocab.n_tokens == 512
    assert model.vocab.eos in model.vocab.eog
    assert "im_start" in (model.chat_template() or "")
    model.close()


def test_rows_of_several_sequences_have_their_own_logits(context: Context) -> None:
    both = compute(context, (0, 0, [1, 2, 3]), (1, 0, [7]))
    assert both.shape == (2, 512)
    context.clear()
    assert np.allclose(compute(context, (1, 0, [7]))[0], both[1], atol=1e-2)


def test_a_sequence_goes_on_where_it_was(context: Context) -> None:
    whole = compute(context, (0, 0, [1, 2, 3, 4]))
    context.seq_rm(0, 2)
    assert np.allclose(compute(context, (0, 2, [3, 4])), whole, atol=1e-2)


def test_no_room_changes_nothing(context: Context) -> None:
    for start in range(0, 256, 64):
        compute(context, (0, start, list(range(64))))
    context.batch.clear()
    context.batch.add(1, 0, [1], n_wanted=1)
    assert not context.decode()
    context.seq_rm(0, 255)
    compute(context, (1, 0, [1]))


def test_the_state_of_a_sequence_moves(context: Context) -> None:
    compute(context, (0, 0, [1, 2, 3]))
    state = context.state_get(0)
    expected = compute(context, (0, 3, [4]))
    context.clear()
    assert context.state_set(1, state)
    assert np.allclose(compute(context, (1, 3, [4])), expected, atol=1e-2)


def test_ids_above_the_computed_ones_hold_cells(context: Context) -> None:
    compute(context, (0, 0, [1, 2, 3]))
    expected = compute(context, (0, 3, [4]))
    context.seq_rm(0, 3)
    context.seq_cp(0, 255)
    context.seq_rm(0)
    context.seq_cp(255, 1)
    assert np.allclose(compute(context, (1, 3, [4])), expected, atol=1e-2)


def test_an_invalid_row_is_a_bug_not_an_answer(context: Context) -> None:
    context.batch.clear()
    context.batch.add(0, 5, [1], n_wanted=1)
    compute(context, (0, 0, [1]))
    context.batch.clear()
    context.batch.add(0, 9, [1], n_wanted=1)  # a gap in the positions
    with pytest.raises(RuntimeError, match="llama_decode failed with -1"):
        context.decode()


ROWS = """
import sys
from inferd.backends.llama.binding import Context, ContextShape, Model
model = Model(sys.argv[1], plain_kernels=sys.argv[2] == "plain")
context = Context(model, ContextShape(256, 64, 64, 64, 1, "f16", unified=True, flash_attention=True))
for n_rows in (2, 5, 8, 21, 63):
    context.clear()
    context.batch.clear()
    for seq in range(n_rows):
        context.batch.add(seq, 0, [7 + seq], n_wanted=1)
    assert context.decode()
    print(hash(context.logits()[0].tobytes()))
"""


@pytest.mark.parametrize("kernels", ["plain", "usual"])
def test_with_plain_kernels_a_row_is_the_same_beside_any_others(tmp_path: Path, kernels: str) -> None:
    from inferd.tests.models.random_gguf import Shape, write_random_gguf

    path = write_random_gguf(tmp_path / "k.gguf", Shape(n_embd=256, n_ff=512), "q4_k_m")
    # The choice holds for a process, so each takes one of its own, and none from this one.
    env = {name: value for name, value in os.environ.items() if name != "GGML_CPU_TILED_MM"}
    command = [sys.executable, "-c", ROWS, str(path), kernels]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60)
    n_different = len(set(done.stdout.split()))
    assert n_different == 1 if kernels == "plain" else n_different > 1


def test_buffers_are_reported(context: Context) -> None:
    assert log.buffers["CPU KV"] > 0


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BindingError, match=r"none\.gguf") as error:
        Model(str(tmp_path / "none.gguf"))
    assert error.value.fault == "corrupt"


def test_an_impossible_context_is_refused(model: Model) -> None:
    with pytest.raises(BindingError) as error:
        Context(model, shape(n_seqs=300))
    assert str(error.value)


def test_nothing_is_written_to_stdout(tiny_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Model(str(tiny_model)).close()
    written = capfd.readouterr()
    assert written.out == ""
    assert "load_tensors" in written.err


def test_a_computation_can_be_broken_off_and_leaves_no_cells(context: Context) -> None:
    nothing = context.state_get(0)
    answers = iter((False, False, True))
    context.batch.clear()
    context.batch.add(0, 0, list(range(64)), n_wanted=1)
    with pytest.raises(Aborted):
        context.decode(lambda: next(answers))
    assert (context.state_get(0) == nothing).all()
    assert context.decode(lambda: False)
    asked = context.logits().copy()
    context.clear()
    assert (asked == compute(context, (0, 0, list(range(64))))).all()


def test_who_is_asked_may_fail(context: Context) -> None:
    def fail() -> bool:
        raise EOFError

    context.batch.clear()
    context.batch.add(0, 0, list(range(64)), n_wanted=1)
    with pytest.raises(EOFError):
        context.decode(fail)
    assert context.decode()
