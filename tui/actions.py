"""What an operator does: each is one call of the daemon, and a sentence about what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protos.errors import InferdError
from . import words

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..protos import inferd_pb2 as pb
    from ..protos.aio import AsyncClient


class Operator:
    """Raises InferdError for what the daemon refuses."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def cancel(self, request_ids: Sequence[str]) -> str:
        return await self._each(request_ids, self._client.cancel, "cancelled")

    async def set_priority(self, request_ids: Sequence[str], priority: str) -> str:
        return await self._each(request_ids, lambda name: self._client.set_priority(name, priority), f"now {priority}")

    async def load(self, model: str) -> str:
        last = await self._client.load(model).wait()
        if last is None or last.state != "ready":
            raise InferdError("internal", f"{model} is not ready")
        return f"{model} is ready on {last.device or 'its device'} after {words.ms(last.load_ms)}"

    async def unload(self, model: str, *, force: bool) -> str:
        was_loaded = await self._client.unload(model, force=force)
        return f"{model} is unloaded" if was_loaded else f"{model} was not loaded"

    async def pin(self, model: str, pinned: bool) -> str:
        await self._client.pin(model, pinned)
        return f"{model} is pinned: it stays once it is loaded" if pinned else f"{model} may go again"

    async def drain(self, draining: bool) -> str:
        await self._client.drain(draining)
        if draining:
            return "draining: no new request is taken in, and what is here goes on"
        return "serving: new requests are taken in again"

    async def plan(self, model: str) -> pb.PlanLoadResponse:
        return await self._client.plan(model)

    async def explain(self, request_id: str) -> list[pb.DecisionRecord]:
        return await self._client.explain(request_id)

    async def catalog(self) -> list[pb.ModelInfo]:
        return await self._client.models()

    async def _each(self, names: Sequence[str], call: Callable[[str], Awaitable[bool]], done: str) -> str:
        """The same to all of them; what has ended meanwhile is no failure."""
        n_done = sum([await call(name) for name in names])
        if len(names) == 1:
            return f"{names[0]} is {done}" if n_done else f"{names[0]} is not live any more"
        rest = f"; {len(names) - n_done} had ended" if n_done < len(names) else ""
        return f"{n_done} requests are {done}{rest}"
