"""HTTP/2 by hand, sound and otherwise: frames as bytes."""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0, n_bytes: int | None = None) -> bytes:
    """`n_bytes`: the length that it claims, where that is not its own."""
    length = len(payload) if n_bytes is None else n_bytes
    return struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(**values: int) -> bytes:
    """By number, as in `settings(s3=100)`."""
    return frame(SETTINGS, b"".join(struct.pack(">HI", int(name[1:]), value) for name, value in values.items()))


def literal(name: bytes, value: bytes) -> bytes:
    """A header that no table holds."""
    return b"\x00" + _number(len(name)) + name + _number(len(value)) + value


def _number(value: int) -> bytes:
    """HPACK's, with a prefix of seven bits."""
    if value < 127:
        return bytes([value])
    value, out = value - 127, b"\x7f"
    while value >= 128:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def call(stream: int, path: str, *, flags: int = END_HEADERS) -> bytes:
    """The headers of a gRPC call."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
    return frame(HEADERS, b"".join(literal(*field) for field in fields), flags=flags, stream=stream)
