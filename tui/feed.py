"""The way from the daemon to the screen: it is dialled for ever, and only the newest picture counts."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Protocol

from ..protos.errors import InferdError

if TYPE_CHECKING:
    from ..protos import inferd_pb2 as pb
    from ..protos.aio import AsyncClient
    from ..protos.aio_streams import AsyncStream

BACK_OFF_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
SILENCE_S, SILENT_PICTURES = 5.0, 3  # after so long, or so many that did not come, the daemon is gone
EVENTS_PAUSE_S = 1.0  # before a stream of events that ended alone is opened again


class Reader(Protocol):
    """Who is told; all on the event loop."""

    def heard_snapshot(self, snapshot: pb.Snapshot) -> None: ...

    def heard_event(self, event: pb.Event) -> None: ...

    def heard_greeting(self, me: pb.WhoAmIResponse) -> None: ...

    def heard_catalog(self, models: list[pb.ModelInfo]) -> None: ...

    def heard_lost(self, reason: str, retry_at_s: float) -> None: ...


class Feed:
    def __init__(self, client: AsyncClient, reader: Reader, interval_ms: int) -> None:
        self._client = client
        self._reader = reader
        self._interval_ms = interval_ms
        self._watch: AsyncStream[pb.Snapshot] | None = None
        self._turned = False  # the stream was ended for another pace
        self._failures = 0
        self._last_event: int | None = None

    async def run(self) -> None:
        """For ever: watch, and when that ends try again after a pause that grows."""
        while True:
            reason = await self._follow()
            if reason is not None:
                await self._pause(reason)

    async def _follow(self) -> str | None:
        """One stream to its end, and why that came; None: for another pace."""
        self._turned = False
        self._watch = self._client.watch(self._interval_ms)
        silence_s = max(SILENCE_S, SILENT_PICTURES * self._interval_ms / 1e3)
        beside: asyncio.Task[None] | None = None
        clock = asyncio.get_running_loop().time
        try:
            # A machine that was switched off says nothing, not even that.
            async with asyncio.timeout(silence_s) as limit:
                async for snapshot in self._watch:
                    limit.reschedule(clock() + silence_s)
                    self._failures = 0
                    if beside is None:
                        beside = asyncio.create_task(self._beside(), name="beside the watch")
                    self._reader.heard_snapshot(snapshot)
            return None if self._turned else "the daemon has ended the stream"
        except TimeoutError:
            return f"the daemon has said nothing for {silence_s:g} s"
        except InferdError as error:
            return error.message or error.code
        finally:
            if beside is not None:
                beside.cancel()
                await asyncio.gather(beside, return_exceptions=True)

    def pace(self, interval_ms: int) -> None:
        """So much between two snapshots from now on."""
        if interval_ms != self._interval_ms:
            self._interval_ms, self._turned = interval_ms, True
            if self._watch is not None:
                self._watch.cancel()

    async def _pause(self, reason: str) -> None:
        """Spread a little, as many monitors may look at one daemon."""
        pause_s = BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)] * random.uniform(0.8, 1.2)
        self._failures += 1
        self._reader.heard_lost(reason, time.monotonic() + pause_s)
        await asyncio.sleep(pause_s)

    async def _beside(self) -> None:
        """What is asked for once, then what happens; a daemon of another version may not know one of them."""
        with contextlib.suppress(InferdError):
            self._reader.heard_greeting(await self._client.whoami())
        with contextlib.suppress(InferdError):
            self._reader.heard_catalog(await self._client.models())
        while True:
            with contextlib.suppress(InferdError):
                async for event in self._client.events(after=self._last_event):
                    self._last_event = event.sequence
                    self._reader.heard_event(event)
            await asyncio.sleep(EVENTS_PAUSE_S)
