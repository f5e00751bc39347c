"""Length-prefixed frames on a socket pair: a sync end for the child, an async end for the daemon.

A frame is a 4-byte little-endian length and that many bytes of msgpack (see messages.py).
"""

from __future__ import annotations

import asyncio
import select
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

MAX_FRAME_BYTES = 64 * 2**20
_LENGTH = struct.Struct("<I")


class FrameBuffer:
    """Bytes in, whole frames out. Raises ValueError on a frame longer than MAX_FRAME_BYTES."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._start = 0

    def feed(self, data: bytes) -> None:
        if self._start:
            del self._data[: self._start]
            self._start = 0
        self._data += data

    def next(self) -> bytes | None:
        """The next whole frame, or None until more bytes come."""
        head = self._start + _LENGTH.size
        if len(self._data) < head:
            return None
        (n_bytes,) = _LENGTH.unpack_from(self._data, self._start)
        if n_bytes > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {n_bytes} bytes, at most {MAX_FRAME_BYTES} are allowed")
        if len(self._data) < head + n_bytes:
            return None
        self._start = head + n_bytes
        return bytes(self._data[head : self._start])


class SyncChannel:
    """The child's end. Blocking writes: a child that is ahead of the daemon waits for it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._buffer = FrameBuffer()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._fd = sock.fileno()

    def wake_on(self, fd: int) -> None:
        """Let `recv` end also when this can be read."""
        self._poll.register(fd, select.POLLIN)

    def recv(self, block: bool, timeout_ms: int | None = None) -> bytes | None:
        """One frame, or None when nothing came (at once, within `timeout_ms`, or before it was woken). Raises EOFError
        at the end."""
        while True:
            frame = self._buffer.next()
            if frame is not None:
                return frame
            if self._fd not in [fd for fd, _ in self._poll.poll(timeout_ms if block else 0)]:
                return None
            try:
                data = self._sock.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            self._buffer.feed(data)

    def send(self, frame: bytes) -> None:
        """Raises OSError when the daemon is gone."""
        self._sock.sendall(_LENGTH.pack(len(frame)) + frame)


class AsyncChannel(asyncio.Protocol):
    """The daemon's end: each frame is handed to `on_frame` on the event loop, the end to `on_end`, once."""

    def __init__(self, on_frame: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._on_end = on_end
        self._buffer = FrameBuffer()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(
        cls, sock: socket.socket, on_frame: Callable[[bytes], None], on_end: Callable[[], None]
    ) -> AsyncChannel:
        """Take over a connected socket."""
        loop = asyncio.get_running_loop()
        _, channel = await loop.connect_accepted_socket(lambda: cls(on_frame, on_end), sock)
        return channel

    def send(self, frame: bytes) -> None:
        """Queue one frame; does nothing once the other end is gone (on_end tells)."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_LENGTH.pack(len(frame)) + frame)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer.feed(data)
        while (frame := self._buffer.next()) is not None:
            self._on_frame(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_end()
