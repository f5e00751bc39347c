"""The process that fetches for one pull, held from outside: start it, ask it, end it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING

import msgspec

from ..domain.errors import Code, InferdError
from ..domain.pull import Failed, Fetch, FromFetcher, Listing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path
    from typing import Self

    from ..domain.pull import Checking, Fetched, Look, Verified

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-P", "-m", "inferd.daemon.system.fetch")
MAX_LINE_BYTES = 4 * 2**20
# The library's own: only what is said here counts, nothing is reported to anybody, and plain HTTP is used, which can be
# gone on with at any byte.
SWITCHES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}
_DECODER: msgspec.json.Decoder[FromFetcher] = msgspec.json.Decoder(FromFetcher)


class Fetcher:
    """Use it as an async context manager: however that is left, the process is dead and reaped then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder  # the library's home is in it, where nothing is
        self._child: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        theirs = ("HF_", "HUGGING")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
        try:
            self._child = await asyncio.create_subprocess_exec(
                *COMMAND,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**environment, **SWITCHES, "HF_HOME": str(self._folder / "home")},
                limit=MAX_LINE_BYTES,
            )
        except OSError as error:
            raise InferdError(Code.INTERNAL, f"no process to fetch models with: {error.strerror}") from None
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._child is not None
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        reaped = asyncio.ensure_future(self._child.wait())
        while not reaped.done():  # also of a task that is cancelled twice: its files are free only then
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(reaped)

    async def look(self, look: Look) -> Listing:
        """Raises InferdError."""
        await self._write(look)
        answer = await self._read()
        if not isinstance(answer, Listing):
            raise _senseless(answer)
        return answer

    async def fetch(self, wanted: Fetch) -> AsyncGenerator[Fetched | Checking | Verified, None]:
        """What it says until all is verified. Raises InferdError."""
        await self._write(wanted)
        while True:
            answer = await self._read()
            if isinstance(answer, Listing):
                raise _senseless(answer)
            yield answer

    async def _write(self, message: Look | Fetch) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        self._child.stdin.write(msgspec.json.encode(message) + b"\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the end of its output tells why
            await self._child.stdin.drain()

    async def _read(self) -> Listing | Fetched | Checking | Verified:
        assert self._child is not None
        assert self._child.stdout is not None
        try:
            line = await self._child.stdout.readline()
            answer = _DECODER.decode(line) if line else None
        except ValueError as error:  # of a line that is too long, too
            raise _senseless(error) from None
        if answer is None:
            code = await self._child.wait()
            log.error("the process that fetches ended with %d", code)
            raise InferdError(Code.INTERNAL, "the process that fetches models ended; the daemon's log may say why")
        if isinstance(answer, Failed):
            raise InferdError(answer.code, answer.message, retry_after_ms=answer.retry_after_ms)
        return answer


def _senseless(answer: object) -> InferdError:
    log.error("the process that fetches says %.200r", answer)
    return InferdError(Code.INTERNAL, "the process that fetches models made no sense; the daemon's log says more")
