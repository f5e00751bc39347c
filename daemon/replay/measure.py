"""The costs of a running daemon's model, so that a replay is about this machine."""

from __future__ import annotations

import asyncio
from statistics import median
from typing import TYPE_CHECKING

from ...protos.aio import AsyncClient
from .engine import Costs
from .fleet import Machine
from .live import prompt

if TYPE_CHECKING:
    from ...protos.answer import Timings

PROMPT_TOKENS, OUTPUT_TOKENS = 512, 48
N_ALONE = 3
SEED = 1 << 20  # its prompts are not those of a trace


async def measured(address: str | None, model: str) -> Machine:
    """Asks a handful of requests of an idle daemon. Raises InferdError.

    The rate of prompts is that of one alone. A step with n streams takes a + b x n: b comes from the time per output
    token of all slots together and of one alone.
    """
    async with AsyncClient(address) as client:
        await client.load(model).wait()
        snapshot = await client.snapshot()
        state = next(row for row in snapshot.models if row.name == model)
        alone = [await _ask(client, model, SEED + i, OUTPUT_TOKENS) for i in range(N_ALONE)]
        together = await asyncio.gather(
            *(_ask(client, model, SEED + N_ALONE + i, OUTPUT_TOKENS, n_prompt=1) for i in range(state.slots))
        )
    prefill_ms = median(timings.prefill_ms for timings in alone)
    one_ms = median(timings.tpot_ms for timings in alone)
    all_ms = median(timings.tpot_ms for timings in together)
    costs = costs_of(prefill_ms, one_ms, all_ms, state.slots)
    return Machine(costs, state.slots, kv_cells=state.kv_cells, context_tokens=state.context_tokens)


def costs_of(prefill_ms: float, one_ms: float, all_ms: float, slots: int) -> Costs:
    """From the time of PROMPT_TOKENS, and of an output token alone and with all slots at work."""
    row_ms = max(0.0, all_ms - one_ms) / (slots - 1) if slots > 1 else 0.0
    rate = PROMPT_TOKENS / prefill_ms * 1e3 if prefill_ms > 0 else 0.0
    return Costs(prefill_tokens_per_s=rate, step_s=max(0.0, one_ms - row_ms) / 1e3, row_s=row_ms / 1e3)


async def _ask(client: AsyncClient, model: str, i: int, n_output: int, n_prompt: int = PROMPT_TOKENS) -> Timings:
    generation = client.generate(
        model, prompt(i, n_prompt), max_tokens=n_output, ignore_eos=True, temperature=0.0, priority="interactive"
    )
    await generation.text()
    assert generation.timings is not None
    return generation.timings
