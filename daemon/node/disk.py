"""The runs of computed blocks that are on disk: which there are, and their way there and back."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING

from ..system.vault import Vault, cache_folder, secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from ...backends.messages import Run
    from ..domain.config import Cache
    from ..system.vault import Filed

log = logging.getLogger(__name__)

REST_S = 60.0  # nothing is written for so long after the disk refused


class Disk:
    """On the event loop; the disk itself is waited for in threads. Without `open` there is none."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self.on_opened: Callable[[], None] = lambda: None
        self.on_refused: Callable[[str], None] = lambda _: None  # with what is not done for that
        self._limit_bytes = 0
        self._vault: Vault | None = None
        self._files: dict[Path, Filed] = {}  # the one used last is last
        self._at: dict[tuple[str, bytes], Filed] = {}  # by fingerprint and the name of any of its blocks
        self._busy = asyncio.Lock()
        self._rest_until_s = 0.0
        self._write_s_per_byte = 1 / 200e6  # until it was measured

    async def open(self, config: Cache, state: Path) -> None:
        """Find what is there. A folder that cannot be used is told of once, and then there is no disk."""
        if not config.disk_bytes:
            return
        try:
            vault = Vault(cache_folder(config.folder), await asyncio.to_thread(secret, state / "cache.key"))
            await asyncio.to_thread(vault.lock)
            files = await asyncio.to_thread(vault.scan, time.time() - config.disk_ttl_s)
        except (OSError, ValueError, RuntimeError) as error:
            return self._refused("computed prompts are not kept on disk", error)
        self._vault, self._limit_bytes = vault, config.disk_bytes
        for filed in files:
            self._add(filed)
        await self._shrink()
        return self.on_opened()

    def has(self, fingerprint: str, run: Run) -> bool:
        return all((fingerprint, name) in self._at for name in run.names)

    def known(self, fingerprint: str) -> list[Run]:
        """What is there for a model as it is computed in some place."""
        return [filed.run for filed in self._files.values() if filed.fingerprint == fingerprint]

    def close(self) -> None:
        if self._vault is not None:
            self._vault.close()
            self._vault = None

    def takes_bytes(self, limit_s: float) -> int:
        """So much can be written in this time, and stays."""
        return 0 if self._vault is None else min(self._limit_bytes, int(limit_s / self._write_s_per_byte))

    async def put(self, fingerprint: str, run: Run, fd: int) -> bool:
        """Write a run, unless it is there already; the caller closes its file. False when it is not on disk then."""
        if self.has(fingerprint, run):
            return True
        async with self._busy:
            if self._vault is None or run.n_bytes > self._limit_bytes or time.monotonic() < self._rest_until_s:
                return False
            start_s = time.monotonic()
            try:
                filed = await asyncio.to_thread(self._vault.write, fingerprint, run, fd)
            except OSError as error:
                self._refused("computed prompts are not kept on disk for a while", error)
                self._rest_until_s = time.monotonic() + REST_S
                return False
            took_s = (time.monotonic() - start_s) / filed.n_bytes
            self._write_s_per_byte += 0.3 * (took_s - self._write_s_per_byte)
            self._add(filed)
            await self._shrink()
            return True

    async def get(
        self, fingerprint: str, names: Iterable[bytes], limit_bytes: int
    ) -> tuple[list[tuple[Run, int]], list[bytes]]:
        """Runs with these blocks, of so many bytes at most, and the names that are not to be had.

        The caller closes their files.
        """
        wanted = list(names)
        files = {filed.path: filed for name in wanted if (filed := self._at.get((fingerprint, name))) is not None}
        found: list[tuple[Run, int]] = []
        async with self._busy:
            for filed in files.values():
                limit_bytes -= filed.run.n_bytes
                if limit_bytes < 0 or self._files.get(filed.path) is not filed or self._vault is None:
                    break
                fd = await asyncio.to_thread(self._vault.read, filed)
                if fd is None:
                    self._forget(filed)
                else:
                    found.append((filed.run, fd))
                    self._files[filed.path] = self._files.pop(filed.path)
        had = {name for run, _ in found for name in run.names}
        return found, [name for name in wanted if name not in had]

    def _refused(self, what: str, error: Exception) -> None:
        """Paths are for the log alone."""
        log.warning("%s: %s", what, error)
        why = error.strerror if isinstance(error, OSError) else None
        self.on_refused(f"{what}: {why or 'the log says why'}")

    def _add(self, filed: Filed) -> None:
        if (old := self._files.get(filed.path)) is not None:
            self._forget(old)
        self._files[filed.path] = filed
        self._at |= {(filed.fingerprint, name): filed for name in filed.run.names}
        self.n_bytes += filed.n_bytes

    def _forget(self, filed: Filed) -> None:
        if self._files.get(filed.path) is filed:
            del self._files[filed.path]
            self.n_bytes -= filed.n_bytes
            for name in filed.run.names:
                if self._at.get((filed.fingerprint, name)) is filed:
                    del self._at[filed.fingerprint, name]

    async def _shrink(self) -> None:
        """Back to the quota: what was used least lately goes."""
        gone = []
        while self.n_bytes > self._limit_bytes:
            gone.append(next(iter(self._files.values())))
            self._forget(gone[-1])
        if gone and self._vault is not None:
            await asyncio.to_thread(self._vault.remove, gone)


def close_all(runs: Iterable[tuple[Run, int]]) -> None:
    for _, fd in runs:
        os.close(fd)
