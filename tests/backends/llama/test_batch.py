"""What is computed next: decoding rows first, then long pieces of prompts, and the same kernels always when exact."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.llama.batch import APART_CELLS, Call, Piece, plan_exact, plan_fast
from inferd.backends.llama.pace import BLOCK
from inferd.backends.llama.sequence import Sequence
from inferd.backends.messages import SamplingParams, Submit
from inferd.backends.sampling import Sampler

PARAMS = SamplingParams(max_tokens=100)


def sequence(n_prompt: int, n_computed: int = 0, n_tokens: int | None = None) -> Sequence:
    tokens = list(range(n_tokens or n_prompt))
    made = Sequence(Submit("job", 1, tokens, n_prompt, PARAMS), 0, Sampler(PARAMS, (), (), 1000), lambda token: b"")
    made.n_computed = n_computed
    return made


def decoding(n_prompt: int = 5) -> Sequence:
    return sequence(n_prompt, n_prompt, n_prompt + 1)


def rows(calls: list[Call]) -> list[list[int]]:
    return [[piece.n_rows for piece in call.pieces] for call in calls]


def test_nothing_to_do_is_no_call() -> None:
    assert plan_fast([], 512, 512) == []
    assert plan_exact([], 512) == []


def test_decoding_rows_come_first_and_prompts_share_the_rest() -> None:
    calls = plan_fast([sequence(100), decoding(), sequence(200), decoding()], 512, 512)
    assert rows(calls) == [[1, 1, 100, 200]]


def test_a_call_is_filled_to_the_row_in_order_of_arrival() -> None:
    assert rows(plan_fast([sequence(2000), sequence(48)], 512, 512)) == [[512]]
    assert rows(plan_fast([sequence(100), sequence(1000), sequence(52)], 128, 512)) == [[100, 28]]
    assert rows(plan_fast([decoding(), decoding(), sequence(992)], 64, 512)) == [[1, 1, 62]]


def test_calls_beside_answers_have_whole_blocks_but_for_the_last() -> None:
    for n_prompt in range(100, 2500, 7):
        prompt, n_rows = sequence(n_prompt), []
        while prompt.n_left:
            (call,) = plan_fast([*(decoding() for _ in range(7)), prompt], 64, 512)
            n_rows.append(call.n_rows)
            prompt.n_computed += call.pieces[-1].n_rows
        assert set(n_rows[:-1]) <= {BLOCK}
        assert n_rows[-1] <= BLOCK


def test_guesses_and_padding_can_be_shed() -> None:
    s = decoding()
    s.draft = [1, 2]
    call = Call([Piece(s, 1)], n_padding=3)
    assert (call.n_rows, call.shed(), call.n_rows, call.shed()) == (6, True, 1, False)
    assert not Call([Piece(s, 1)], n_padding=1).shed()


def test_prompts_have_a_call_of_their_own_beside_answers_with_many_cells() -> None:
    short, long = decoding(100), decoding(APART_CELLS + 1)
    assert rows(plan_fast([short, sequence(500)], 64, 512)) == [[1, 63]]
    assert rows(plan_fast([short, long, sequence(500)], 64, 512)) == [[1, 1], [64]]


def test_a_full_ubatch_still_moves_the_prompt() -> None:
    assert rows(plan_fast([*(decoding() for _ in range(8)), sequence(100)], 64, 64)) == [[1] * 8 + [56]]


def test_exact_blocks_are_whole_and_alone() -> None:
    calls = plan_exact([decoding(), sequence(200), sequence(30)], 128)
    assert rows(calls) == [[1, 30], [64], [64]]


def test_exact_ends_of_prompts_share_the_small_call() -> None:
    assert rows(plan_exact([sequence(140, 128), sequence(60)], 512)) == [[12, 51]]


def test_exact_replayed_tokens_are_not_prompt() -> None:
    assert rows(plan_exact([sequence(128, 128, 400)], 512)) == [[63]]


def test_exact_pads_a_single_row() -> None:
    (call,) = plan_exact([decoding()], 512)
    assert (call.n_padding, call.n_rows) == (1, 2)


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(0, 100)), min_size=1, max_size=80),
    st.sampled_from([64, 128, 512]),
)
def test_exact_rows_always_meet_the_same_kernel(shapes: list[tuple[int, int]], chunk: int) -> None:
    sequences = [sequence(n_prompt, 0, n_prompt + n_more) for n_prompt, n_more in shapes]
    while any(s.n_left for s in sequences):
        left = [s for s in sequences if s.n_left]
        calls = plan_exact(left, chunk)
        assert calls
        for call in calls:
            whole = [piece.n_rows == BLOCK for piece in call.pieces]
            assert len(whole) == 1 if any(whole) else 2 <= call.n_rows < BLOCK
            for piece in call.pieces:
                blocks_end = piece.sequence.n_prompt // BLOCK * BLOCK
                assert (piece.n_rows == BLOCK) == (piece.sequence.n_computed < blocks_end)
                assert piece.sequence.n_computed % BLOCK == 0 or piece.n_rows < BLOCK
                piece.sequence.n_computed += piece.n_rows


@given(
    st.lists(st.tuples(st.integers(1, 2000), st.booleans()), min_size=1, max_size=16), st.sampled_from([64, 128, 512])
)
def test_fast_always_moves_on_within_the_ubatch(shapes: list[tuple[int, bool]], chunk: int) -> None:
    sequences = [decoding(n) if decodes else sequence(n) for n, decodes in shapes]
    n_steps = 0
    while left := [s for s in sequences if s.n_left]:
        calls = plan_fast(left, chunk, 512)
        assert len(calls) <= 2
        assert all(0 < call.n_rows <= 512 for call in calls)
        for piece in (piece for call in calls for piece in call.pieces):
            assert 0 < piece.n_rows <= piece.sequence.n_left
            piece.sequence.n_computed += piece.n_rows
        n_steps += 1
    assert n_steps <= 2 + sum(n for n, _ in shapes) // 32 + len(shapes)
