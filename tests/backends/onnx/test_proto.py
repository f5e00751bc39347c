from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.onnx.proto import BadProto, Span, Walk, message, signed


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def read(data: bytes) -> list[tuple[int, int | bytes]]:
    fields = message(io.BytesIO(data)).fields()
    return [(n, v.walk.read(v.start, v.end) if isinstance(v, Span) else v) for n, v in fields]


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 2**64 - 1) | st.binary(max_size=200))))
def test_fields_come_back_as_they_were_written(fields: list[tuple[int, int | bytes]]) -> None:
    assert read(b"".join(field(*one) for one in fields)) == fields


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadProto):
        read(data)


def test_fixed_numbers_are_stepped_over() -> None:
    data = varint(1 << 3 | 1) + b"8" * 8 + varint(2 << 3 | 5) + b"4" * 4 + field(3, 7)
    assert read(data) == [(3, 7)]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (field(1, b"abc")[:-1], "longer than its message"),
        (varint(1 << 3 | 1) + b"1234", "longer than its message"),
        (varint(1 << 3 | 3), "wire type 3"),
        (b"\x08" + b"\xff" * 11, "does not end"),
        (b"\x08\xff", "does not end"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadProto, match=why):
        read(data)


def test_a_walk_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.backends.onnx.proto.MAX_FIELDS", 3)
    assert len(read(field(1, 1) * 3)) == 3
    with pytest.raises(BadProto, match="more than 3 fields"):
        read(field(1, 1) * 4)


def span(data: bytes) -> Span:
    return Span(Walk(io.BytesIO(data)), 0, len(data))


def test_texts_and_lists() -> None:
    assert span("grün".encode()).text() == "grün"
    with pytest.raises(BadProto, match="UTF-8"):
        span("grün".encode()[:3]).text()
    assert list(span(varint(5) + varint(300)).varints()) == [5, 300]
    assert [signed(5), signed(2**64 - 1)] == [5, -1]


def test_a_file_is_read_a_window_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.backends.onnx.proto.WINDOW_BYTES", 40)
    fields: list[tuple[int, int | bytes]] = [(i, b"x" * i if i % 2 else 2**60 + i) for i in range(1, 90)]
    assert read(b"".join(field(*one) for one in fields)) == fields
    numbers = [2**62 + i for i in range(50)]
    assert list(span(b"".join(map(varint, numbers))).varints()) == numbers


def test_a_file_that_is_cut_short_meanwhile_is_refused() -> None:
    file = io.BytesIO(field(1, 7) + field(2, b"x" * 100_000) + field(3, b"y"))
    fields = message(file).fields()
    assert next(fields) == (1, 7)
    file.truncate(50)
    _, value = next(fields)
    assert isinstance(value, Span)
    with pytest.raises(BadProto, match="text"):
        value.text()
    with pytest.raises(BadProto, match="does not end"):
        next(fields)
