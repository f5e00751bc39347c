"""How many tokens ahead are computed for whom, at most."""

from __future__ import annotations

import pytest

from inferd.backends.facts import LoadPlan, Numerics
from inferd.backends.llama.guess import Guesser
from inferd.backends.llama.lookup import Lookup
from inferd.backends.llama.pace import Pace
from inferd.backends.llama.sequence import Sequence
from inferd.backends.messages import SamplingParams, Submit
from inferd.backends.sampling import Sampler

SAID = [1, 2, 3, 4] * 10


class Free(Pace):
    """Rows cost nothing."""

    def flow_rows_ms(self, n_rows: int) -> float:
        return 1.0


def guesser(*, n_draft: int = 15, n_ctx: int = 512, numerics: Numerics = "fast") -> Guesser:
    plan = LoadPlan(
        backend="llama",
        path="",
        n_ctx=n_ctx,
        n_slots=64,
        kv_cells=n_ctx,
        n_threads=1,
        n_draft=n_draft,
        numerics=numerics,
    )
    return Guesser(plan, n_ctx, Free())


def running(i: int = 0, *, max_tokens: int = 100) -> Sequence:
    """A request that repeats itself, and whose guesses all came true so far."""
    params = SamplingParams(max_tokens=max_tokens)
    submit = Submit(f"j{i}", 1, SAID, len(SAID) - 1, params)
    lookup = Lookup()
    lookup._odds.comes_true = 1.0
    return Sequence(submit, i, Sampler(params, (), (), 512), lambda _: b"", lookup)


def test_the_first_in_turn_have_all_that_there_is() -> None:
    sequences = [running(i) for i in range(3)]
    guesser(n_draft=18).guess(sequences)
    assert [len(s.draft) for s in sequences] == [15, 3, 0]


@pytest.mark.parametrize(("n_running", "n_guesses"), [(1, 15), (40, 22), (63, 0), (64, 0)])
def test_with_exact_numerics_all_rows_are_of_one_small_call(n_running: int, n_guesses: int) -> None:
    sequences = [running(i) for i in range(n_running)]
    guesser(n_draft=40, numerics="exact").guess(sequences)
    assert sum(len(s.draft) for s in sequences) == n_guesses


def test_nothing_is_guessed_beyond_the_context_or_the_last_token() -> None:
    s = running()
    guesser(n_ctx=len(SAID) + 4).guess([s])
    assert len(s.draft) == 3
    s = running(max_tokens=5)  # one is there, one is due
    guesser().guess([s])
    assert len(s.draft) == 3
    s = running(max_tokens=2)
    guesser().guess([s])
    assert s.draft == []
