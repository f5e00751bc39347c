"""Protocol buffers read in place: the fields of one message, without a copy of what is not asked for.

An ONNX file is one message with all the weights in it, so it is walked over a mapping of the file and the weights are
stepped over. Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_TEXT_BYTES = 64 * 2**10  # of a name; a file with holes may claim any length
MAX_FIELDS = 4_000_000  # of one file: a graph of 100,000 nodes has half of that


class BadProto(Exception):
    """These bytes are no message."""


class Span:
    """A message, or a string, in a file: `data[start:end]`."""

    __slots__ = ("data", "end", "start", "walk")

    def __init__(self, data: memoryview, start: int, end: int, walk: Walk) -> None:
        self.data, self.start, self.end, self.walk = data, start, end, walk

    def __len__(self) -> int:
        return self.end - self.start

    def fields(self) -> Iterator[tuple[int, int | Span]]:
        """Numbers and values: integers as such, everything with a length as a Span. Raises BadProto."""
        data, at, end, walk = self.data, self.start, self.end, self.walk
        while at < end:
            walk.count()
            key, at = _varint(data, at, end)
            number, wire_type = key >> 3, key & 7
            if wire_type == BYTES:
                n_bytes, at = _varint(data, at, end)
                if n_bytes > end - at:
                    raise BadProto("a field is longer than its message")
                yield number, Span(data, at, at + n_bytes, walk)
                at += n_bytes
            elif wire_type == VARINT:
                value, at = _varint(data, at, end)
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
            return str(self.data[self.start : self.end], "utf-8")
        except UnicodeDecodeError:
            raise BadProto("a text in it is not UTF-8") from None

    def varints(self) -> Iterator[int]:
        """A packed list of integers."""
        at = self.start
        while at < self.end:
            value, at = _varint(self.data, at, self.end)
            yield value


class Walk:
    """Counts what is looked at, so that no file takes for ever."""

    def __init__(self) -> None:
        self.n_left = MAX_FIELDS

    def count(self) -> None:
        self.n_left -= 1
        if self.n_left < 0:
            raise BadProto(f"it has more than {MAX_FIELDS:,} fields")


def message(data: memoryview) -> Span:
    """The whole of a file."""
    return Span(data, 0, len(data), Walk())


def signed(value: int) -> int:
    """An int64 as it is meant: negative ones are written as if they were large."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift >= 70:
            break
    raise BadProto("a number does not end")
