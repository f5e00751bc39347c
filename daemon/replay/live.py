"""The same arrivals sent to a running daemon at their times: an open loop, so a slow daemon does not slow the clients.

Prompts are token ids drawn from the place in the trace, so that no two share a prefix; answers are made as long as they
were (`max_tokens` with `ignore_eos`). Times are those of the client, from the moment it sent.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...protos.aio import AsyncClient
from ...protos.errors import InferdError
from .fairness import Book
from .report import DONE, Outcome, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...protos import inferd_pb2 as pb
    from ...protos.aio_streams import AsyncGeneration
    from .arrivals import Arrival

# Ids that every vocabulary has, above those that are control tokens by custom.
_ORDINARY = bytes(16 + byte % 200 for byte in range(256))


def prompt(i: int, n_tokens: int) -> list[int]:
    """The tokens of the i-th request: the same each time, and unlike those of any other."""
    return list(random.Random(i).randbytes(n_tokens).translate(_ORDINARY))


async def play(address: str | None, model: str, arrivals: Sequence[Arrival]) -> Result:
    """Send every arrival at its time and read every answer. Raises InferdError when the model cannot be loaded."""
    async with AsyncClient(address) as client:
        for name in dict.fromkeys(arrival.model or model for arrival in arrivals):
            await client.load(name).wait()
        before = (await client.snapshot()).rates
        run = _Run(model, {tenant: AsyncClient(address, tenant=tenant) for tenant in {a.tenant for a in arrivals}})
        await run.play(arrivals)
        after = (await client.snapshot()).rates
    run.result.preemptions = after.preemptions_total - before.preemptions_total
    run.result.evictions = after.evictions_total - before.evictions_total
    return run.result


@dataclass(slots=True)
class _Asked:
    """One request, as its client sees it."""

    who: tuple[str, str]  # class and tenant
    outcome: Outcome
    sent_s: float
    n_tokens: int = 0  # of the prompt and what has come
    waits: bool = True


@dataclass(slots=True)
class _Run:
    model: str
    clients: dict[str, AsyncClient]  # by tenant
    result: Result = field(default_factory=lambda: Result([], Book()))
    start_s: float = 0.0

    async def play(self, arrivals: Sequence[Arrival]) -> None:
        loop = asyncio.get_running_loop()
        self.start_s = loop.time()
        self.result.outcomes = [Outcome(arrival) for arrival in arrivals]
        async with asyncio.TaskGroup() as tasks:
            for i, outcome in enumerate(self.result.outcomes):
                generation = self._generation(i, outcome.arrival)
                await asyncio.sleep(max(0.0, self.start_s + outcome.arrival.at_s - loop.time()))
                tasks.create_task(self._ask(outcome, generation), name=f"request {i}")
            self.result.book.end_of_arrivals()
        for client in self.clients.values():
            await client.close()

    def _generation(self, i: int, arrival: Arrival) -> AsyncGeneration:
        """Made before its time: a long prompt takes a while."""
        return self.clients[arrival.tenant].generate(
            arrival.model or self.model,
            prompt(i, arrival.prompt_tokens),
            max_tokens=arrival.output_tokens,
            ignore_eos=True,
            temperature=0.0,
            priority=arrival.priority.value,
            deadline_ms=arrival.deadline_ms,
        )

    async def _ask(self, outcome: Outcome, generation: AsyncGeneration) -> None:
        arrival, book, now = outcome.arrival, self.result.book, asyncio.get_running_loop().time
        asked = _Asked((arrival.priority.value, arrival.tenant), outcome, now())
        book.arrive(asked.who, arrival.prompt_tokens, arrival.output_tokens)
        try:
            async for event in generation.events():
                self._take(asked, event, now())
            outcome.ended = DONE
        except InferdError as error:
            outcome.ended, outcome.retry_after_ms = error.code, error.retry_after_ms
            outcome.reason = error.details.get("reason", "")
        outcome.end_ms = (now() - asked.sent_s) * 1e3
        outcome.parks = generation.resumed
        if asked.waits:
            book.leave(asked.who)
        else:
            book.stop(asked.who, asked.n_tokens)

    def _take(self, asked: _Asked, event: pb.GenerateResponse, now_s: float) -> None:
        outcome, book = asked.outcome, self.result.book
        gone_ms = (now_s - asked.sent_s) * 1e3
        kind = event.WhichOneof("event")
        if kind == "queued":
            eta = event.queued
            if asked.waits and outcome.eta_ms is None and eta.HasField("eta_high_ms"):
                outcome.eta_ms = (eta.eta_low_ms + gone_ms, eta.eta_high_ms + gone_ms)
            self._lost_slot(asked)
        elif kind in ("started", "resumed"):
            self._lost_slot(asked)  # in case that nobody said so
            asked.waits = False
            if outcome.queue_ms is None:
                outcome.queue_ms, asked.n_tokens = gone_ms, outcome.arrival.prompt_tokens
            n_generated = outcome.output_tokens
            book.start(asked.who, outcome.arrival.prompt_tokens, n_generated, again=kind == "resumed")
        elif kind == "delta":
            if outcome.ttft_ms is None:
                outcome.ttft_ms = gone_ms
            n_tokens = len(event.delta.tokens)
            outcome.output_tokens += n_tokens
            asked.n_tokens += n_tokens
            book.grow(asked.who, n_tokens)
        book.look(now_s - self.start_s)

    def _lost_slot(self, asked: _Asked) -> None:
        if not asked.waits:
            self.result.book.stop(asked.who, asked.n_tokens, waits=True)
            asked.waits = True
