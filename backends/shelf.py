"""A worker's way to memory that outlives it: sealed files go to the daemon and come back, beside the frames."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from . import memfd
from .blob import Blob
from .messages import Dropped, Fetch, Given, Kept, Run, Stored, encode

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from .channel import SyncChannel

log = logging.getLogger(__name__)


class Shelf:
    """One for a worker. `on_given` gets runs with their files, which it closes, and the names that nobody has."""

    def __init__(self, channel: SyncChannel, sock: socket.socket) -> None:
        self._channel = channel
        self._sock = sock
        self.on_given: Callable[[Sequence[tuple[Run, int]], Sequence[bytes]], None] = _close
        self.on_stored: Callable[[Sequence[bytes], int], None] = _ignore

    def keep(self, run: Run, fd: int) -> None:
        """The daemon holds the file from now on, too."""
        memfd.send(self._sock, [fd])
        self._channel.send(encode(Kept(run)))

    def drop(self, name: bytes, *, wanted: bool) -> None:
        self._channel.send(encode(Dropped(name, wanted)))

    def fetch(self, names: Sequence[bytes]) -> None:
        self._channel.send(encode(Fetch(list(names))))

    def send_blob(self, blob: Blob) -> None:
        """The file of a long one; the frame that says so has to follow. It stays open here."""
        if blob.fd is not None:
            memfd.send(self._sock, [blob.fd])

    def receive_blob(self, n_bytes: int, data: bytes | None) -> Blob:
        """What a frame brought, or the file that came before it."""
        if data is not None:
            return Blob(n_bytes, data=data)
        (fd,) = memfd.receive(self._sock, 1)
        return Blob(n_bytes, fd=fd)

    def take(self, message: Stored | Given) -> None:
        """What the daemon says of it."""
        if isinstance(message, Stored):
            self.on_stored(message.names, message.block_bytes)
        elif isinstance(message, Given):
            fds = memfd.receive(self._sock, len(message.runs)) if message.runs else []
            self.on_given(list(zip(message.runs, fds, strict=True)), message.missing)


def _ignore(names: Sequence[bytes], block_bytes: int) -> None:
    """An engine that keeps nothing asks for nothing."""


def _close(given: Sequence[tuple[Run, int]], _: Sequence[bytes]) -> None:
    """An engine that keeps nothing was given something."""
    for given_fd in [fd for _, fd in given]:
        with contextlib.suppress(OSError):
            os.close(given_fd)
