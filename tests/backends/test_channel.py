"""Frames over a socket pair: any cutting of the bytes gives the same frames, and the end is heard once."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.channel import MAX_FRAME_BYTES, AsyncChannel, FrameBuffer, SyncChannel

if TYPE_CHECKING:
    from collections.abc import Iterator

    Pair = tuple[socket.socket, socket.socket]


def framed(frame: bytes) -> bytes:
    return struct.pack("<I", len(frame)) + frame


def drain(buffer: FrameBuffer) -> list[bytes]:
    frames = []
    while (frame := buffer.next()) is not None:
        frames.append(frame)
    return frames


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_any_cutting_of_any_frames_gives_the_same_frames(frames: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(framed, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    buffer = FrameBuffer()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        buffer.feed(stream[start:end])
        if data.draw(st.booleans()):  # a reader may also let several pieces gather
            found += drain(buffer)
    assert found + drain(buffer) == frames
    assert buffer.next() is None


def test_a_frame_longer_than_allowed_is_refused_before_it_comes() -> None:
    buffer = FrameBuffer()
    buffer.feed(struct.pack("<I", MAX_FRAME_BYTES + 1))
    with pytest.raises(ValueError, match=str(MAX_FRAME_BYTES)):
        buffer.next()


def test_the_longest_frame_is_waited_for() -> None:
    buffer = FrameBuffer()
    buffer.feed(struct.pack("<I", MAX_FRAME_BYTES))
    assert buffer.next() is None


def test_the_childs_end_takes_what_is_there_and_does_not_wait_for_more(pair: Pair) -> None:
    ours, theirs = pair
    channel = SyncChannel(theirs)
    assert channel.recv(block=False) is None
    assert channel.recv(block=True, timeout_ms=1) is None
    ours.sendall(framed(b"one") + framed(b"two") + framed(b"three")[:5])
    assert channel.recv(block=True) == b"one"
    assert channel.recv(block=False) == b"two"
    assert channel.recv(block=False) is None
    ours.sendall(framed(b"three")[5:])
    assert channel.recv(block=True) == b"three"


def test_the_childs_end_hears_the_last_frame_and_then_the_end(pair: Pair) -> None:
    ours, theirs = pair
    channel = SyncChannel(theirs)
    ours.sendall(framed(b"last"))
    ours.close()
    assert channel.recv(block=True) == b"last"
    with pytest.raises(EOFError):
        channel.recv(block=True)
    with pytest.raises(EOFError):
        channel.recv(block=False)
    with pytest.raises(BrokenPipeError):
        channel.send(b"to nobody")


class Daemon:
    """The daemon's end and what it heard."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.n_ends = 0

    def on_end(self) -> None:
        self.n_ends += 1
        self.ended.set()

    async def open(self, sock: socket.socket) -> AsyncChannel:
        return await AsyncChannel.open(sock, self.frames.put_nowait, self.on_end)


async def test_frames_go_both_ways(pair: Pair) -> None:
    ours, theirs = pair
    daemon, child = Daemon(), SyncChannel(theirs)
    channel = await daemon.open(ours)
    big = bytes(300_000)  # more than a socket holds
    channel.send(b"hello")
    assert await asyncio.to_thread(child.recv, True) == b"hello"
    await asyncio.to_thread(child.send, b"")
    await asyncio.to_thread(child.send, big)
    assert await daemon.frames.get() == b""
    assert await daemon.frames.get() == big
    channel.send(big)
    assert await asyncio.to_thread(child.recv, True) == big
    channel.close()
    await daemon.ended.wait()


async def test_the_end_is_told_once_and_sending_after_it_does_nothing(pair: Pair) -> None:
    ours, theirs = pair
    daemon = Daemon()
    channel = await daemon.open(ours)
    theirs.close()
    await daemon.ended.wait()
    channel.send(b"to nobody")
    channel.close()
    await asyncio.sleep(0)
    assert daemon.n_ends == 1


async def test_our_own_close_is_an_end_for_both(pair: Pair) -> None:
    ours, theirs = pair
    daemon = Daemon()
    channel = await daemon.open(ours)
    channel.send(b"last")
    channel.close()
    await daemon.ended.wait()
    child = SyncChannel(theirs)
    assert child.recv(block=True) == b"last"
    with pytest.raises(EOFError):
        child.recv(block=True)


async def test_a_reader_that_breaks_on_a_frame_ends_the_channel(pair: Pair) -> None:
    ours, theirs = pair
    daemon = Daemon()
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    await AsyncChannel.open(ours, lambda frame: [][len(frame)], daemon.on_end)
    SyncChannel(theirs).send(b"not ours")
    await daemon.ended.wait()
    assert isinstance(complaints[0]["exception"], IndexError)
