"""Protocol buffers read in place: the fields of one message, without a copy of what is not asked for.

An ONNX file is one message with all the weights in it, so it is read a window at a time and weights are stepped over.
It is not mapped: whoever cuts a file short while it is looked at would end the process. Wire format:
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_TEXT_BYTES = 64 * 2**10  # of a name; a file with holes may claim any length
HEAD_BYTES = 32  # of a field: its number and its length, or its value
WINDOW_BYTES = 64 * 2**10
MAX_FIELDS = 4_000_000  # of one file: a graph of 100,000 nodes has half of that


class BadProto(Exception):
    """These bytes are no message."""


class Span:
    """A message, or a string, in a file, from `start` to before `end`."""

    __slots__ = ("end", "start", "walk")

    def __init__(self, walk: Walk, start: int, end: int) -> None:
        self.walk, self.start, self.end = walk, start, end

    def __len__(self) -> int:
        return self.end - self.start

    def fields(self) -> Iterator[tuple[int, int | Span]]:
        """Numbers and values: integers as such, everything with a length as a Span. Raises BadProto."""
        at, end, walk = self.start, self.end, self.walk
        while at < end:
            walk.count()
            data, base = walk.look(at)
            key, at = _varint(data, base, at, end)
            number, wire_type = key >> 3, key & 7
            if wire_type == BYTES:
                n_bytes, at = _varint(data, base, at, end)
                if n_bytes > end - at:
                    raise BadProto("a field is longer than its message")
                yield number, Span(walk, at, at + n_bytes)
                at += n_bytes
            elif wire_type == VARINT:
                value, at = _varint(data, base, at, end)
                yield number, value
            elif wire_type in (FIXED64, FIXED32):
                at += 8 if wire_type == FIXED64 else 4
                if at > end:
                    raise BadProto("a field is longer than its message")
            else:
                raise BadProto(f"wire type {wire_type} does not exist")

    def spans(self, wanted: int) -> Iterator[Span]:
        """All values of one field that have a length."""
        return (value for number, value in self.fields() if number == wanted and isinstance(value, Span))

    def text(self) -> str:
        """Raises BadProto when it is too long, or not UTF-8."""
        if len(self) > MAX_TEXT_BYTES:
            raise BadProto(f"a text in it has more than {MAX_TEXT_BYTES:,} bytes")
        try:
            return str(self.walk.read(self.start, self.end), "utf-8")
        except UnicodeDecodeError:
            raise BadProto("a text in it is not UTF-8") from None

    def varints(self) -> Iterator[int]:
        """A packed list of integers."""
        at = self.start
        while at < self.end:
            value, at = _varint(*self.walk.look(at), at, self.end)
            yield value


class Walk:
    """Over a file. Counts what is looked at, so that none takes for ever."""

    def __init__(self, file: BinaryIO) -> None:
        self.n_left = MAX_FIELDS
        self._file, self._window, self._base = file, b"", 0

    def look(self, at: int) -> tuple[bytes, int]:
        """What is there, at least the head of a field unless the file ends; and the place of its first byte."""
        if not self._base <= at <= self._base + len(self._window) - HEAD_BYTES:
            self._window, self._base = self._read(at, WINDOW_BYTES), at
        return self._window, self._base

    def read(self, start: int, end: int) -> bytes:
        """Raises BadProto when it is not there any more."""
        data, base = self.look(start)
        found = data[start - base : end - base] if end <= base + len(data) else self._read(start, end - start)
        if len(found) != end - start:
            raise BadProto("it is shorter than it says")
        return found

    def _read(self, at: int, n_bytes: int) -> bytes:
        self._file.seek(at)
        return self._file.read(n_bytes)

    def count(self) -> None:
        self.n_left -= 1
        if self.n_left < 0:
            raise BadProto(f"it has more than {MAX_FIELDS:,} fields")


def message(file: BinaryIO) -> Span:
    """The whole of a file."""
    return Span(Walk(file), 0, file.seek(0, os.SEEK_END))


def signed(value: int) -> int:
    """An int64 as it is meant: negative ones are written as if they were large."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _varint(data: bytes, base: int, at: int, end: int) -> tuple[int, int]:
    """The number at a place of the file, of which `data` begins at `base`; and the place after it."""
    value = shift = 0
    i, end = at - base, min(end - base, len(data))
    while i < end:
        byte = data[i]
        i += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, base + i
        shift += 7
        if shift >= 70:
            break
    raise BadProto("a number does not end")
