"""A worker's end of the shelf against the daemon's, without processes."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from inferd.backends import memfd
from inferd.backends.channel import SyncChannel
from inferd.backends.messages import Dropped, Fetch, Given, Kept, Run, Stored, decode_from_worker
from inferd.backends.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RUN = Run([b"a", b"b"], 2, "t")


class Pair:
    def __init__(self) -> None:
        self.frames = socket.socketpair()
        self.files = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.daemon = SyncChannel(self.frames[0])
        self.shelf = Shelf(SyncChannel(self.frames[1]), self.files[1])

    def said(self) -> object:
        frame = self.daemon.recv(block=True, timeout_ms=5000)
        assert frame is not None
        return decode_from_worker(frame)

    def close(self) -> None:
        for sock in (*self.frames, *self.files):
            sock.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    it = Pair()
    yield it
    it.close()


def sealed(content: bytes) -> int:
    fd = memfd.create(len(content))
    with memfd.writable(fd) as view:
        view[:] = content
    memfd.seal(fd)
    return fd


def test_what_is_kept_is_told_and_its_file_is_there_by_then(pair: Pair) -> None:
    fd = sealed(b"1234")
    pair.shelf.keep(RUN, fd)
    os.close(fd)
    assert pair.said() == Kept(RUN)
    (came,) = memfd.receive(pair.files[0], 1)
    assert bytes(memfd.readable(came, RUN.n_bytes)) == b"1234"
    os.close(came)


def test_what_is_dropped_and_what_is_wanted_is_told(pair: Pair) -> None:
    pair.shelf.drop(b"a", wanted=True)
    pair.shelf.fetch([b"b", b"c"])
    assert (pair.said(), pair.said()) == (Dropped(b"a", True), Fetch([b"b", b"c"]))


def test_what_is_given_comes_with_its_files(pair: Pair) -> None:
    seen: list[tuple[list[tuple[Run, bytes]], list[bytes]]] = []

    def on_given(given: Sequence[tuple[Run, int]], missing: Sequence[bytes]) -> None:
        seen.append(([(run, bytes(memfd.readable(fd, run.n_bytes))) for run, fd in given], list(missing)))
        for _, fd in given:
            os.close(fd)

    pair.shelf.on_given = on_given
    fd = sealed(b"1234")
    memfd.send(pair.files[0], [fd])
    os.close(fd)
    pair.shelf.take(Given([RUN], [b"z"]))
    pair.shelf.take(Given([], [b"y"]))
    assert seen == [([(RUN, b"1234")], [b"z"]), ([], [b"y"])]


def test_what_is_stored_is_told(pair: Pair) -> None:
    seen: list[tuple[list[bytes], int]] = []
    pair.shelf.on_stored = lambda names, block_bytes: seen.append((list(names), block_bytes))
    pair.shelf.take(Stored([b"a"], 7))
    assert seen == [([b"a"], 7)]


def test_an_engine_that_keeps_nothing_loses_no_file(pair: Pair) -> None:
    fd = sealed(b"1234")
    memfd.send(pair.files[0], [fd])
    os.close(fd)
    n_open = len(os.listdir("/proc/self/fd"))
    pair.shelf.take(Given([RUN]))
    pair.shelf.take(Stored([b"a"], 7))
    assert len(os.listdir("/proc/self/fd")) == n_open
