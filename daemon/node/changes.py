"""Something changed: a wake-up for whoever waits on the Node's state, without saying what."""

from __future__ import annotations

import asyncio


class Changes:
    """Waiters look at the state again after each wake-up; many changes before that are one."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None

    def notify(self) -> None:
        if self._next is not None and not self._next.done():
            self._next.set_result(None)
        self._next = None

    def next(self) -> asyncio.Future[None]:
        """The next change; take it before a look at the state, and no change after that look is missed."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return asyncio.shield(self._next)

    async def wait(self) -> None:
        """Until the next change."""
        await self.next()
