"""The header reader: what it reads, and that hostile files get one clear sentence."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends.facts import CorruptModel
from inferd.backends.llama import header
from inferd.backends.llama.header import ArrayLength, Header, printable, read_header

if TYPE_CHECKING:
    from pathlib import Path

HUGE = 2**63


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.gguf"


def read(path: Path, data: bytes) -> Header:
    path.write_bytes(data)
    return read_header(path)


def refused(path: Path, data: bytes) -> str:
    with pytest.raises(CorruptModel) as caught:
        read(path, data)
    sentence = str(caught.value)
    assert str(path) not in sentence
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("version", [2, 3])
def test_keys_and_tensors(path: Path, gguf: Any, version: int) -> None:
    file = gguf.small()
    file.version = version
    file.keys |= {"a": gguf.u32s([1, 2]), "b": gguf.u32s([0] * 600), "c": gguf.u64(HUGE), "d": gguf.flag(True)}
    read_in = read(path, file.build())
    assert read_in.version == version
    assert read_in.keys["general.architecture"] == "llama"
    assert read_in.keys["tokenizer.ggml.tokens"] == ArrayLength(64)
    assert [read_in.keys[k] for k in "abcd"] == [(1, 2), ArrayLength(600), HUGE, True]
    first, second = read_in.tensors[:2]
    assert (first.name, first.type_name, first.shape) == ("token_embd.weight", "Q8_0", (64, 64))
    assert (first.n_elements, first.n_bytes) == (4096, 4096 // 32 * 34)
    assert second.offset_bytes == first.offset_bytes + first.n_bytes
    assert first.offset_bytes % 32 == 0


def test_agrees_with_the_formats_own_library(path: Path, gguf: Any) -> None:
    import gguf as library

    read_in = read(path, gguf.small().build())
    theirs = library.GGUFReader(path).tensors
    ours = [(t.name, t.shape, t.offset_bytes, t.n_bytes) for t in read_in.tensors]
    assert ours == [(t.name, tuple(map(int, t.shape)), t.data_offset, int(t.n_bytes)) for t in theirs]


def test_long_texts_keep_their_beginning(path: Path, gguf: Any) -> None:
    file = gguf.small()
    file.keys["tokenizer.chat_template"] = gguf.string("x" * 1_000_000)
    read_in = read(path, file.build())
    assert read_in.keys["tokenizer.chat_template"] == "x" * 1024
    assert len(read_in.tensors) == 9


def test_strings_across_chunks(path: Path, gguf: Any) -> None:
    words = ["w" * (i * 7919 % 5000) for i in range(600)]
    file = gguf.small()
    file.keys = {"words": gguf.strings(words), "after": gguf.u32(7)}
    assert read(path, file.build()).keys == {"words": ArrayLength(600), "after": 7}


def test_a_large_vocabulary_is_skipped_quickly(path: Path, gguf: Any) -> None:
    file = gguf.small(n_vocab=152_000)
    path.write_bytes(file.build())
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert read_header(path).keys["tokenizer.ggml.tokens"] == ArrayLength(152_000)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.150


def test_truncated_weights(path: Path, gguf: Any) -> None:
    file = gguf.small()
    data = file.build()
    sentence = refused(path, data[:-100])
    last = list(file.tensors)[-1]
    assert sentence == (f"truncated: tensor {last} ends at byte {len(data):,} but the file has {len(data) - 100:,}")


def test_every_truncation_is_told(path: Path, gguf: Any) -> None:
    file = gguf.small(n_vocab=8)
    data = file.build()
    for n in range(0, len(file.header()), 11):
        assert "truncated" in refused(path, data[:n])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 1}, "version 1 is not supported"),
        ({"version": 4}, "version 4 is not supported"),
        ({"version": 3 << 24}, "big-endian"),
        ({"n_tensors": HUGE}, f"counts {HUGE:,} tensors but 65,536"),
        ({"n_tensors": 2**40}, "tensors but 65,536"),
        ({"n_keys": 2**40}, "keys but 2,048"),
        ({"n_keys": 13}, "truncated: key 13 of 13"),
    ],
)
def test_bad_preamble(path: Path, gguf: Any, change: dict[str, int], words: str) -> None:
    file = gguf.small()
    for name, value in change.items():
        setattr(file, name, value)
    assert words in refused(path, file.build())


@pytest.mark.parametrize("data", [b"", b"GGUF", b"GGML" + bytes(100), b"PK\3\4" + bytes(100)])
def test_not_gguf(path: Path, data: bytes) -> None:
    assert refused(path, data)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("", struct.pack("<II", 4, 1), "has no name"),
        ("k" * 2000, struct.pack("<II", 4, 1), "2,000 bytes but 1,024 are allowed"),
        ("x", struct.pack("<IQ", 8, HUGE), "key x ends at byte"),
        ("x", struct.pack("<IIQ", 9, 4, HUGE), "key x ends at byte"),
        ("x", struct.pack("<IIQ", 9, 8, 2**40), "key x ends at byte"),
        ("x", struct.pack("<IIQQ", 9, 8, 1, HUGE), "key x ends at byte"),
        ("x", struct.pack("<IIQ", 9, 9, 2), "array of arrays"),
        ("x", struct.pack("<IIQ", 9, 77, 2), "unknown value type 77"),
        ("x", struct.pack("<I", 13), "unknown value type 13"),
        ("general.alignment", struct.pack("<II", 4, 0), "power of two"),
        ("general.alignment", struct.pack("<II", 4, 48), "power of two"),
        ("general.alignment", struct.pack("<IQ", 10, HUGE), "power of two"),
        ("general.alignment", struct.pack("<If", 6, 32.0), "power of two"),
    ],
)
def test_bad_keys(path: Path, gguf: Any, key: str, value: bytes, words: str) -> None:
    file = gguf.small()
    file.keys[key] = value
    assert words in refused(path, file.build())


@pytest.mark.parametrize(
    ("name", "shape", "kind", "words"),
    [
        ("", (32,), 0, "has no name"),
        ("n" * 64, (32,), 0, "64 bytes but 63"),
        ("t", (), 0, "0 dimensions"),
        ("t", (1, 1, 1, 1, 1), 0, "5 dimensions"),
        ("t", (32, 0), 0, "dimension of zero"),
        ("t", (2**32, 2**32), 0, "elements but"),
        ("t", (HUGE,), 0, "elements but"),
        ("t", (2**40,), 0, "truncated: tensor t ends at byte"),
        ("t", (33, 2), 8, "rows of 33 elements but Q8_0 has blocks of 32"),
        ("t", (32,), 4, "unknown type 4"),
        ("t", (32,), 2**31, "unknown type"),
    ],
)
def test_bad_tensors(path: Path, gguf: Any, name: str, shape: tuple[int, ...], kind: int, words: str) -> None:
    file = gguf.small()
    header_only = file.header  # the data of a huge tensor is not written
    file.tensors[name] = (shape, kind)
    assert words in refused(path, header_only() + bytes(40_000))


@pytest.mark.parametrize("offset", [0, 1, 32, HUGE, 2**64 - 32])
def test_data_out_of_place(path: Path, gguf: Any, offset: int) -> None:
    file = gguf.small()
    file.offsets["output.weight"] = offset
    assert f"begins at byte {offset:,} of the data but" in refused(path, file.build())


def test_duplicates(path: Path, gguf: Any) -> None:
    data = gguf.small().build()
    assert "key llama.block_count appears twice" in refused(
        path, data.replace(b"general.file_type", b"llama.block_count")
    )
    assert "tensor blk.0.attn_k.weight appears twice" in refused(path, data.replace(b"blk.1.attn_k", b"blk.0.attn_k"))


def test_strings_are_bounded_in_number(path: Path, gguf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "MAX_ARRAY_STRINGS", 100)
    file = gguf.small()
    file.keys["more"] = gguf.strings(["x"] * 37)
    assert "over the 100 that are allowed" in refused(path, file.build())


def test_the_header_is_bounded_in_bytes(path: Path, gguf: Any) -> None:
    file = gguf.small()
    file.keys = {"x": struct.pack("<IIQ", 9, 4, 2**40)}
    path.write_bytes(file.header())
    os.truncate(path, 2**43)  # sparse
    with pytest.raises(CorruptModel, match="a header may have 268,435,456 bytes at most"):
        read_header(path)


def test_hostile_names_are_made_printable(path: Path, gguf: Any) -> None:
    file = gguf.small()
    file.keys["\x1b[2J\n" + "k" * 500] = struct.pack("<I", 99)
    sentence = refused(path, file.build())
    assert sentence.isprintable()
    assert len(sentence) < 200
    assert printable("a\nb\u202ec") == "a\ufffdb\ufffdc"


def test_what_is_no_file(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe.gguf"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, tmp_path / "gone", tmp_path / "a\0b", "/dev/zero"):
        with pytest.raises(CorruptModel) as caught:
            read_header(path)
        assert str(tmp_path) not in str(caught.value)


def test_memory_stays_small(path: Path, gguf: Any) -> None:
    path.write_bytes(gguf.small(n_vocab=100_000).build())
    tracemalloc.start()
    try:
        read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
