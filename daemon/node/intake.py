"""Who may have a job kept: at the door of the durable jobs, before anything is written."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..domain.errors import Code, InferdError
from ..system.store import Store

if TYPE_CHECKING:
    import asyncio

    from ..domain.durable import DurableJob, Entry
    from ..domain.request import Request
    from .archive import Archive
    from .node import Node


@dataclass(slots=True, eq=False)
class Arrival:
    """Waits to be written."""

    entry: Entry
    taken_in: asyncio.Future[DurableJob]


class Intake:
    def __init__(self, node: Node, archive: Archive) -> None:
        self.node = node
        self.archive = archive
        self.n_live: Counter[str] = Counter()  # by tenant, with those that arrive

    async def tenant_bytes(self, tenant: str) -> int:
        """What the jobs of a tenant take, where that may be too much. Raises InferdError."""
        if self.archive.used_bytes < self._share_bytes():
            return 0
        return await self.archive.look(Store.bytes_of, tenant)

    def check(self, job: DurableJob, request: Request, tenant_bytes: int) -> None:
        """Raises InferdError."""
        options = self.node.config.jobs
        self.node.refuse_new()
        self.node.check(request, time.monotonic())
        if job.id in self.node.jobs:
            raise in_use(job.id)
        for whose, n, most in (
            ("this tenant has", self.n_live[job.tenant], options.max_jobs_per_tenant),
            ("there are", self.n_live.total(), options.max_jobs),
        ):
            if n >= most:
                message = f"{whose} {n:,} jobs that have not ended, at most {most:,} are taken in"
                raise InferdError(Code.QUEUE_FULL, message, retry_after_ms=10_000, waiting=n, limit=most)
        for whose, n_bytes, most in (
            ("the jobs of this tenant", tenant_bytes, self._share_bytes()),
            ("the jobs that are kept", self.archive.used_bytes, options.max_bytes),
        ):
            if n_bytes >= most:
                message = f"{whose} take {n_bytes:,} bytes, at most {most:,} may be taken"
                raise InferdError(Code.NO_DISK, message, retry_after_ms=60_000, used_bytes=n_bytes, limit=most)

    def _share_bytes(self) -> int:
        options = self.node.config.jobs
        return max(1, int(options.max_bytes * options.tenant_share))


def same(first: DurableJob, job: DurableJob) -> DurableJob:
    """What was there is the answer to who asks once more. Raises InferdError where it is something else."""
    if first is job:
        return first
    if not job.key or (first.key, first.tenant) != (job.key, job.tenant):
        raise in_use(job.id)
    if first.digest != job.digest:
        message = f"job {first.id} came with this idempotency_key, and with another request"
        raise InferdError(Code.INVALID, message, field="idempotency_key")
    return first


def in_use(request_id: str) -> InferdError:
    return InferdError(Code.INVALID, f"request_id {request_id} is in use", field="request.request_id")
