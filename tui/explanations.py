"""What the daemon says about single requests, asked for when somebody looks at one and kept for a while."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from ..protos.errors import InferdError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..protos import inferd_pb2 as pb

KEPT = 64
REST_S = 0.15  # the cursor has to stay so long on a row
AGAIN_S = 2.0  # an explanation is asked for again when it is older and still looked at


class Explanations:
    """`ask`: the call of the daemon. `on_news`: there is something else to show."""

    def __init__(
        self, ask: Callable[[str], Awaitable[Sequence[pb.DecisionRecord]]], on_news: Callable[[], None]
    ) -> None:
        self._ask = ask
        self._on_news = on_news
        self._known: dict[str, tuple[float, Sequence[pb.DecisionRecord]]] = {}
        self._wanted = ""
        self._task: asyncio.Task[None] | None = None

    def get(self, request_id: str) -> Sequence[pb.DecisionRecord]:
        """What is known, perhaps nothing yet; being asked for it, it is brought up to date."""
        asked_s, records = self._known.get(request_id, (float("-inf"), ()))
        if time.monotonic() - asked_s > AGAIN_S:
            self.want(request_id)
        return records

    def want(self, request_id: str) -> None:
        """Somebody looks at this one now."""
        busy = self._task is not None and not self._task.done()
        if busy and request_id == self._wanted:
            return
        self._wanted = request_id
        if busy and self._task is not None:
            self._task.cancel()
        self._task = asyncio.get_running_loop().create_task(self._fetch(request_id), name="explain")

    def close(self) -> None:
        """Nobody looks any more."""
        if self._task is not None:
            self._task.cancel()

    async def _fetch(self, request_id: str) -> None:
        await asyncio.sleep(REST_S)
        try:
            records = await self._ask(request_id)
        except InferdError:  # the daemon is gone, or has forgotten it: what was known stays
            records = self._known.get(request_id, (0.0, ()))[1]
        self._known.pop(request_id, None)
        self._known[request_id] = (time.monotonic(), records)
        while len(self._known) > KEPT:
            del self._known[next(iter(self._known))]
        self._on_news()
