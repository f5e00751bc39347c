"""Sealed files without a name, and their way over a socket."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from inferd.backends import memfd

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for one in (ours, theirs):
        one.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def made(content: bytes, *, sealed: bool = True) -> int:
    fd = memfd.create(len(content))
    with memfd.writable(fd) as view:
        view[:] = content
    if sealed:
        memfd.seal(fd)
    return fd


def test_what_was_written_is_read_by_whoever_has_the_file(pair: tuple[socket.socket, socket.socket]) -> None:
    fds = [made(b"one"), made(b"three")]
    memfd.send(pair[0], fds)
    for fd in fds:
        os.close(fd)
    came = memfd.receive(pair[1], 2)
    assert [bytes(memfd.readable(fd, n)) for fd, n in zip(came, (3, 5), strict=True)] == [b"one", b"three"]
    assert not any(os.get_inheritable(fd) for fd in came)
    for fd in came:
        os.close(fd)


def test_nobody_changes_a_sealed_file() -> None:
    fd = made(b"abc")
    with pytest.raises(OSError, match="not permitted"):
        os.write(fd, b"x")
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(fd, 1)
    with pytest.raises(OSError, match="not permitted"), memfd.writable(fd):
        pass
    os.close(fd)


@pytest.mark.parametrize(("sealed", "n_bytes"), [(False, 3), (True, 2), (True, 4), (True, 0)])
def test_a_file_must_be_sealed_and_of_the_size_that_is_expected(sealed: bool, n_bytes: int) -> None:
    fd = made(b"abc", sealed=sealed)
    with pytest.raises(ValueError, match="the file"):
        memfd.readable(fd, n_bytes)
    os.close(fd)


def test_another_kind_of_file_is_refused() -> None:
    end, other = os.pipe()
    with pytest.raises(ValueError, match="sealed"):
        memfd.readable(end, 1)
    os.close(end)
    os.close(other)


def test_files_that_do_not_come_or_are_too_many_are_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(OSError, match="unavailable"):
        memfd.receive(pair[1], 1)
    fds = [made(b"a"), made(b"b")]
    memfd.send(pair[0], fds)
    n_open = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="2 files came, not 1"):
        memfd.receive(pair[1], 1)
    assert len(os.listdir("/proc/self/fd")) == n_open
    for fd in fds:
        os.close(fd)


def test_a_file_is_whole_when_all_of_it_is_there() -> None:
    fd = memfd.create(1 << 20)
    try:
        assert not memfd.is_whole(fd, 1 << 20)  # nothing but a hole
        os.pwrite(fd, bytes(1 << 20), 0)
        assert memfd.is_whole(fd, 1 << 20)
        assert not memfd.is_whole(fd, 1 << 19)
    finally:
        os.close(fd)
    reading, writing = os.pipe()
    assert not memfd.is_whole(reading, 0)
    os.close(reading)
    os.close(writing)
