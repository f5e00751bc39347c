"""The gRPC door of monitors: what is, what happened, and why."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any

from ...protos import inferd_pb2 as pb
from ...protos import inferd_pb2_grpc as pb_grpc
from ..domain.errors import Code, InferdError
from ..domain.event import Severity
from ..domain.request import MAX_ID_CHARS
from . import wire
from .guard import guarded
from .who import only_tenant, role, tenant
from .wire_snapshot import to_snapshot

if TYPE_CHECKING:
    import grpc

    from ..domain.event import Event
    from ..node.node import Node
    from ..node.telemetry import Telemetry

    Context = grpc.aio.ServicerContext[Any, Any]

MAX_RECORDS = 512  # of one explanation: the first 64 and the last ones
WATCH_MS = (100, 1000, 60_000)  # lowest, default, highest
SHARED_S = 0.1  # so long all who watch are sent the same message
SEVERITIES = [severity.value for severity in Severity]  # the least first


class Monitor(pb_grpc.MonitorServicer):
    def __init__(self, node: Node, telemetry: Telemetry) -> None:
        self.node = node
        self.telemetry = telemetry
        self._shared, self._shared_s = pb.Snapshot(), -math.inf

    @guarded
    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Context) -> pb.Snapshot:
        return to_snapshot(self.telemetry.snapshot())

    @guarded
    async def Watch(self, request: pb.WatchRequest, context: Context) -> None:
        lowest, default, highest = WATCH_MS
        interval_ms = request.interval_ms if request.HasField("interval_ms") else default
        if not lowest <= interval_ms <= highest:
            message = f"interval_ms must be in [{lowest}, {highest}], not {interval_ms}"
            raise InferdError(Code.INVALID, message, field="interval_ms", lowest=lowest, highest=highest)
        shown = None
        while True:
            shown = self._newest(shown)
            # A slow reader blocks here and so sees only the newest state, never a backlog.
            await context.write(shown)
            await asyncio.sleep(interval_ms / 1e3)

    def _newest(self, shown: pb.Snapshot | None) -> pb.Snapshot:
        """One for all who watch; never the one that was shown before."""
        now_s = time.monotonic()
        if self._shared is shown or now_s - self._shared_s >= SHARED_S:
            self._shared, self._shared_s = to_snapshot(self.telemetry.snapshot()), now_s
        return self._shared

    @guarded
    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:
        records = self.node.scheduler.journal.about(request.request_id, only_tenant(context))
        if not records:
            text = f"nothing is remembered of request {request.request_id[:MAX_ID_CHARS]!r}"
            raise InferdError(Code.NOT_FOUND, text, field="request_id")
        shown = records if len(records) <= MAX_RECORDS else [*records[:64], *records[64 - MAX_RECORDS :]]
        return wire.to_explanation(request.request_id, shown, time.monotonic())

    @guarded
    async def WatchEvents(self, request: pb.WatchEventsRequest, context: Context) -> None:
        events, least = self.node.events, _rank(request.severity)
        cursor, follow = request.after, not request.HasField("follow") or request.follow
        while found := await events.later(cursor) if follow else events.after(cursor):
            # A slow reader blocks here, and goes on with the oldest of those that are kept then.
            for event in found:
                if SEVERITIES.index(event.severity.value) >= least:
                    await context.write(to_event(event))
            cursor = found[-1].sequence

    @guarded
    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.WhoAmIResponse:
        return pb.WhoAmIResponse(tenant=tenant(context), role=role(context))


def to_event(event: Event) -> pb.Event:
    """Field for field."""
    return pb.Event(
        sequence=event.sequence,
        unix_s=event.unix_s,
        severity=event.severity.value,
        kind=event.kind.value,
        message=event.message,
        model=event.model,
        request_id=event.request_id,
        tenant=event.tenant,
        device=event.device,
    )


def _rank(severity: str) -> int:
    """Of the least that is wanted. Raises InferdError."""
    if severity and severity not in SEVERITIES:
        message = f"severity must be one of {', '.join(SEVERITIES)}, not {severity[:32]!r}"
        raise InferdError(Code.INVALID, message, field="severity")
    return SEVERITIES.index(severity) if severity else 0
