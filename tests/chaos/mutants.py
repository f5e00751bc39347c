"""Model files that nobody meant: of sound ones, with bits flipped, ends cut off, and lies in their headers."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

NUMBERS = (0, 1, 2, 3, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
MAX_BYTES = 64  # of a part that is moved, doubled or cut out


def mutate(rng: random.Random, data: bytes, n_header: int) -> tuple[str, bytes]:
    """What was done, and the file. `n_header`: its first bytes, which say what the others are."""
    kind = rng.choice(list(KINDS))
    return kind, KINDS[kind](rng, data, min(n_header, len(data)))


def _flip(rng: random.Random, data: bytes, end: int) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        out[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(out)


def _flip_anywhere(rng: random.Random, data: bytes, end: int) -> bytes:
    return _flip(rng, data, len(data))


def _cut(rng: random.Random, data: bytes, end: int) -> bytes:
    return data[: rng.choice((rng.randrange(end), rng.randrange(len(data)), len(data) - 1))]


def _number(rng: random.Random, data: bytes, end: int) -> bytes:
    """A number that is none of the file's, wherever; most often it is part of a text."""
    n_bytes = rng.choice((4, 8))
    at = rng.randrange(max(1, end - n_bytes))
    value = rng.choice(NUMBERS) & ((1 << 8 * n_bytes) - 1)
    return data[:at] + value.to_bytes(n_bytes, "little") + data[at + n_bytes :]


def _erase(rng: random.Random, data: bytes, end: int) -> bytes:
    at, n = _part(rng, end)
    return data[:at] + bytes(n) + data[at + n :]


def _cut_out(rng: random.Random, data: bytes, end: int) -> bytes:
    at, n = _part(rng, end)
    return data[:at] + data[at + n :]


def _double(rng: random.Random, data: bytes, end: int) -> bytes:
    at, n = _part(rng, end)
    return data[: at + n] + data[at:]


def _move(rng: random.Random, data: bytes, end: int) -> bytes:
    at, n = _part(rng, end)
    to = rng.randrange(end)
    return data[:to] + data[at : at + n] + data[to + n :]


def _part(rng: random.Random, end: int) -> tuple[int, int]:
    at = rng.randrange(end)
    return at, rng.randrange(1, MAX_BYTES + 1)


KINDS: dict[str, Callable[[random.Random, bytes, int], bytes]] = {
    "flip": _flip,
    "flip anywhere": _flip_anywhere,
    "cut": _cut,
    "number": _number,
    "erase": _erase,
    "cut out": _cut_out,
    "double": _double,
    "move": _move,
}


def with_number(data: bytes, key: str, value: int) -> bytes:
    """A GGUF file whose 32-bit number of this key is another one."""
    head = struct.pack("<Q", len(key)) + key.encode()
    at = data.index(head) + len(head)
    (kind,) = struct.unpack_from("<I", data, at)
    assert kind in (4, 5), f"{key} is no 32-bit number"
    return data[: at + 4] + struct.pack("<I", value & 0xFFFFFFFF) + data[at + 8 :]


def with_text(data: bytes, old: bytes, new: bytes) -> bytes:
    """Texts of the same length; the first of the old ones is replaced."""
    assert len(old) == len(new)
    assert old in data
    return data.replace(old, new, 1)


def known_ggufs(data: bytes) -> dict[str, bytes]:
    """Of a sound llama file: what has brought loaders down, in this library or in others that read the format."""
    n_tensors, n_keys = struct.unpack_from("<QQ", data, 8)
    found = {
        "no tensors": data[:8] + struct.pack("<QQ", 0, n_keys) + data[24:],
        "all tensors": data[:8] + struct.pack("<QQ", 2**64 - 1, n_keys) + data[24:],
        "all keys": data[:8] + struct.pack("<QQ", n_tensors, 2**61) + data[24:],
        "an empty key": data[:24] + struct.pack("<Q", 0) + data[24 + 8 + struct.unpack_from("<Q", data, 24)[0] :],
        "a key as long as the world": data[:24] + struct.pack("<Q", 2**64 - 8) + data[32:],
        "big endian": data[:4] + data[4:8][::-1] + data[8:],
        "version 1": data[:4] + struct.pack("<I", 1) + data[8:],
        "nothing": b"",
        "a magic": b"GGUF",
        # One flipped bit in a vocabulary: two words are the same, which llama.cpp asserts they are not.
        "a word twice": _a_word_twice(data),
    }
    for key, values in {
        "llama.attention.head_count": (0, 3, 2**31, 2**32 - 1),
        "llama.attention.head_count_kv": (0, 3, 2**32 - 1),
        "llama.block_count": (0, 1, 1000, 2**31 - 1, 2**32 - 1),
        "llama.context_length": (0, 1, 2**32 - 1),
        "llama.embedding_length": (0, 1, 63, 2**32 - 1),
        "llama.feed_forward_length": (0, 1, 2**31),
        "tokenizer.ggml.eos_token_id": (2**31, 2**32 - 1),
    }.items():
        found |= {f"{key} = {value}": with_number(data, key, value) for value in values}
    return found


def _a_word_twice(data: bytes) -> bytes:
    """The second of two neighbours in the vocabulary that differ in one byte becomes the first."""
    at = data.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 4 + 4
    (n_words,) = struct.unpack_from("<Q", data, at)
    at += 8
    last = b""
    for _ in range(n_words):
        (n_bytes,) = struct.unpack_from("<Q", data, at)
        word = data[at + 8 : at + 8 + n_bytes]
        if len(word) == len(last) and word != last:
            return data[: at + 8] + last + data[at + 8 + n_bytes :]
        at, last = at + 8 + n_bytes, word
    raise AssertionError("no two words are of the same length")
