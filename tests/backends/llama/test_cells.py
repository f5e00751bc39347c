"""Exact cells: no hole, whole tiles, and tidying that changes no bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.backends.llama.binding import Context, ContextShape, Model
from inferd.backends.llama.cells import N_FILLER, TIDY_CELLS, ExactCells, _packed_end

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

    Logits = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@pytest.mark.parametrize(
    ("lengths", "n_cells", "end"),
    [
        ([], 0, 0),
        ([256], 256, 256),
        ([257], 256, None),
        ([64, 64], 128, 128),
        ([65, 64], 192, 192),
        ([65, 64], 191, None),
        ([200, 1], 257, None),
        ([200, 1], 263, 257),
    ],
)
def test_runs_are_packed_each_from_a_whole_tile(lengths: list[int], n_cells: int, end: int | None) -> None:
    assert _packed_end(lengths, n_cells) == end


@pytest.fixture
def context(tiny_model: Path) -> Iterator[Context]:
    model = Model(str(tiny_model))
    context = Context(model, ContextShape(2048, 5, 5, 64, 1, "f16", unified=True, flash_attention=True))
    yield context
    context.close()
    model.close()


def put(context: Context, cells: ExactCells, seq: int, pos: int, tokens: list[int]) -> Logits:
    """One call with a block, or with fewer rows beside a scratch row, as the engine does it."""
    assert cells.ready_for(len(tokens))
    context.batch.clear()
    context.batch.add(seq, pos, tokens, n_wanted=1)
    if len(tokens) == 1:
        context.batch.add(4, 0, [0], n_wanted=0)
    assert context.decode()
    context.seq_rm(4)
    cells.took(len(tokens))
    row: Logits = context.logits()[0].copy()
    return row


@pytest.mark.llama
def test_blocks_begin_at_whole_tiles(context: Context) -> None:
    cells = ExactCells(context)
    put(context, cells, 0, 0, [5])
    put(context, cells, 1, 0, [7] * 64)
    assert (cells.end, cells.n_dead) == (128, N_FILLER)


@pytest.mark.llama
def test_the_last_one_out_leaves_nothing(context: Context) -> None:
    cells = ExactCells(context)
    put(context, cells, 0, 0, [5])
    cells.release(0, 1, [])
    assert (cells.end, cells.n_dead) == (0, 0)
    assert not cells.tidy([])


@pytest.mark.llama
def test_the_same_rows_give_the_same_bits_wherever_they_lie(context: Context) -> None:
    cells = ExactCells(context)
    tokens = [3 * i % 500 for i in range(160)]

    def ask(seq: int) -> Logits:
        put(context, cells, seq, 0, tokens[:64])
        put(context, cells, seq, 64, tokens[64:128])
        put(context, cells, seq, 128, tokens[128:])
        return put(context, cells, seq, 160, [9])

    alone = ask(0)
    put(context, cells, 1, 0, [8] * 30)
    assert (ask(2) == alone).all()
    cells.release(0, 161, [(1, 30), (2, 161)])
    put(context, cells, 1, 30, [8] * 30)
    after = put(context, cells, 2, 161, [10])
    assert cells.tidy([(1, 60), (2, 162)])
    assert cells.n_dead == 4  # only the gap before the second
    assert (ask(3) == alone).all()
    assert (put(context, cells, 3, 161, [10]) == after).all()


@pytest.mark.llama
def test_dead_cells_are_tidied_when_they_are_many(context: Context) -> None:
    cells = ExactCells(context)
    n_blocks = TIDY_CELLS // 64 + 1
    put(context, cells, 1, 0, [5] * 10)
    for i in range(n_blocks):
        put(context, cells, 0, 64 * i, [6] * 64)
    cells.release(0, 64 * n_blocks, [(1, 10)])
    assert (cells.end, cells.n_dead) == (10, 0)


@pytest.mark.llama
def test_tidying_what_is_tidy_wins_nothing(context: Context) -> None:
    cells = ExactCells(context)
    put(context, cells, 0, 0, [5] * 10)
    put(context, cells, 1, 0, [6] * 64)
    assert cells.n_dead == 54
    assert not cells.tidy([(0, 10), (1, 64)])


@pytest.mark.llama
def test_a_block_without_room_is_refused(context: Context) -> None:
    cells = ExactCells(context)
    for i in range(31):
        put(context, cells, 0, 64 * i, [6] * 64)
    put(context, cells, 1, 0, [5] * 10)
    assert not cells.ready_for(64)
    assert cells.ready_for(2)
