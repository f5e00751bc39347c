"""What a worker is told when a job gets a slot."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import msgspec

from ...backends.messages import Embed, Submit
from ..domain.request import Priority

if TYPE_CHECKING:
    from ..domain.request import Job

RANK = {Priority.BATCH: 0, Priority.NORMAL: 1, Priority.INTERACTIVE: 2}  # who is parked first when KV is short


def order(job: Job, itl_target_ms: float | None, session_s: float) -> Submit | Embed:
    """Of a prepared job: all that is left to do, with the tokens so far. `session_s`: how long sessions stay warm."""
    assert job.prompt is not None
    rank = RANK[job.request.priority]
    if job.request.inputs is not None:
        return _embed(job, job.prompt, rank)
    params = msgspec.structs.replace(
        job.request.params, max_tokens=job.max_tokens, grammar=job.grammar, calls=job.syntax
    )
    return Submit(
        job.id,
        job.attempt,
        job.prompt + job.generated,
        len(job.prompt),
        params,
        rank,
        job.sent_bytes,
        itl_target_ms or 0.0,
        job.cache_salt,
        job.request.lora,
        session_s if job.request.session_id else 0.0,
    )


def _embed(job: Job, tokens: list[int], rank: int) -> Embed:
    inputs = job.request.inputs
    assert inputs is not None
    ends = list(accumulate(job.lengths))
    left = [tokens[end - n : end] for end, n in zip(ends, job.lengths, strict=True)][job.n_embedded :]
    known_tokens = sum(job.lengths[: job.n_embedded])
    return Embed(job.id, job.attempt, left, inputs.normalize, inputs.dimensions or 0, rank, known_tokens)
