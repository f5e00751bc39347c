"""What a worker is told when a job gets a slot."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import msgspec

from ...backends.messages import Embed, Infer, Submit
from ..domain.request import Priority

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...backends.facts import ModelFacts
    from ..domain.request import Job

RANK = {Priority.BATCH: 0, Priority.NORMAL: 1, Priority.INTERACTIVE: 2}  # who is parked first when KV is short


def order(job: Job, facts: ModelFacts, itl_target_ms: float | None, session_s: float) -> Submit | Embed | Infer:
    """Of a prepared job: all that is left to do, with the tokens so far. `session_s`: how long sessions stay warm."""
    assert job.prompt is not None
    rank = RANK[job.request.priority]
    if job.request.inputs is not None:
        return _embed(job, job.prompt, facts, rank)
    if job.request.tensors is not None:
        tensors = job.request.tensors
        where = due_s(job), salt(job, facts)
        return Infer(job.id, job.attempt, list(tensors.inputs), list(tensors.outputs), tensors.blob.data, rank, *where)
    params = msgspec.structs.replace(
        job.request.params, max_tokens=job.max_tokens, grammar=job.grammar, calls=job.syntax
    )
    return Submit(
        job.id,
        job.attempt,
        [*job.prompt, *job.generated],
        len(job.prompt),
        params,
        rank,
        job.sent_bytes,
        itl_target_ms or 0.0,
        job.cache_salt,
        job.request.lora,
        session_s if job.request.session_id else 0.0,
    )


def due_s(job: Job) -> float:
    """Its deadline by the clock that all processes share; 0 without one."""
    deadline_ms = job.request.deadline_ms
    return 0.0 if deadline_ms is None else job.arrived_s + deadline_ms / 1e3


def salt(job: Job, facts: ModelFacts) -> str:
    """Whose requests may share a call, where one could tell from its result who else was in it."""
    return job.request.tenant if facts.dynamic_quantization else ""


def _embed(job: Job, tokens: Sequence[int], facts: ModelFacts, rank: int) -> Embed:
    inputs = job.request.inputs
    assert inputs is not None
    ends = list(accumulate(job.lengths))
    left = [list(tokens[end - n : end]) for end, n in zip(ends, job.lengths, strict=True)][job.n_embedded :]
    known_tokens = sum(job.lengths[: job.n_embedded])
    normalize = facts.normalize if inputs.normalize is None else inputs.normalize
    how = normalize, inputs.dimensions or 0, rank, known_tokens, job.seconds[job.n_embedded :]
    return Embed(job.id, job.attempt, left, *how, due_s(job), salt(job, facts))
