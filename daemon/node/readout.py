"""What can be read of durable jobs: as they are on the disk, and which of them run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from ..domain.durable import State
from ..domain.errors import Code, InferdError
from ..domain.request import Phase
from ..system.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ..domain.durable import DurableJob, Piece
    from .durable import Durable

LOOK_S = 0.5  # again at a job that nobody here knows


class Readout:
    """Changes nothing. `tenant` None: jobs of any. All but `now` raise InferdError."""

    def __init__(self, durable: Durable) -> None:
        self.durable = durable
        self.archive = durable.archive

    async def get(self, job_id: str, tenant: str | None) -> DurableJob:
        return self.now(own(await self.archive.look(Store.get, job_id), tenant))

    async def newest(self, tenant: str | None, state: State | None, limit: int) -> list[DurableJob]:
        await self.archive.ready()
        if state in (State.QUEUED, State.RUNNING):  # the disk does not tell them apart
            rows = (self.now(book.row) for book in reversed(self.durable.books.values()))
            return [row for row in rows if row.state is state and tenant in (None, row.tenant)][:limit]
        found = await self.archive.look(Store.newest, tenant, state, limit)
        return [self.now(row) for row in found]

    async def follow(self, job_id: str, tenant: str | None, offset: int) -> AsyncGenerator[Piece | DurableJob, None]:
        """Its answer from a token on as it gets to the disk, and at last the job as it ended."""
        job = await self.get(job_id, tenant)
        if offset > job.n_tokens:
            message = f"offset is {offset}, but the answer has {job.n_tokens} tokens"
            raise InferdError(Code.INVALID, message, field="offset", highest=job.n_tokens)
        seen = -1
        while True:
            book = self.durable.books.get(job_id)
            change = None if book is None else book.changes.next()
            row, pieces = await self.archive.look(Store.since, job_id, offset)
            new = [piece for piece in pieces if piece.index > seen]
            for piece in new:
                if (rest := piece.since(offset)) is not None:
                    yield rest
                seen, offset = piece.index, max(offset, piece.end)
            if new:
                continue
            job = own(row, tenant)
            if job.over:
                yield job
                return
            self.durable.node.refuse_when_closing()
            await (asyncio.sleep(LOOK_S) if change is None else change)

    def now(self, row: DurableJob) -> DurableJob:
        """With what only this daemon knows."""
        book = self.durable.books.get(row.id)
        runs = book is not None and book.tape is not None and book.tape.job.phase in (Phase.RUNNING, Phase.PARKING)
        return msgspec.structs.replace(row, state=State.RUNNING) if runs and not row.over else row


def own(row: DurableJob | None, tenant: str | None) -> DurableJob:
    """A job of another tenant does not exist. Raises InferdError."""
    if row is None or tenant not in (None, row.tenant):
        raise InferdError(Code.NOT_FOUND, "there is no such job", field="id")
    return row
