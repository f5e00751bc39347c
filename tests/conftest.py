"""A small GGUF writer of our own, so that tests can also write what no library would."""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import settings

# The same examples in every run; to look for new ones: HYPOTHESIS_PROFILE=default
settings.register_profile("repeatable", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

SIZES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 8: (32, 34), 12: (256, 144)}  # by type number: block, bytes of a block


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


@dataclass
class Gguf:
    """Keys hold their type number and value already encoded; everything may be changed before `build`."""

    keys: dict[str, bytes] = field(default_factory=dict)
    tensors: dict[str, tuple[tuple[int, ...], int]] = field(default_factory=dict)  # name: (shape, type)
    offsets: dict[str, int] = field(default_factory=dict)  # where not the right one
    version: int = 3
    alignment: int = 32
    n_keys: int | None = None
    n_tensors: int | None = None

    @staticmethod
    def u32(value: int) -> bytes:
        return struct.pack("<II", 4, value)

    @staticmethod
    def u64(value: int) -> bytes:
        return struct.pack("<IQ", 10, value)

    @staticmethod
    def flag(value: bool) -> bytes:
        return struct.pack("<I?", 7, value)

    @staticmethod
    def string(value: str | bytes) -> bytes:
        return struct.pack("<I", 8) + text(value)

    @staticmethod
    def strings(values: list[str]) -> bytes:
        return struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(text, values))

    @staticmethod
    def u32s(values: list[int]) -> bytes:
        return struct.pack(f"<IIQ{len(values)}I", 9, 4, len(values), *values)

    @staticmethod
    def flags(values: list[bool]) -> bytes:
        return struct.pack(f"<IIQ{len(values)}?", 9, 7, len(values), *values)

    @classmethod
    def small(cls, arch: str = "llama", n_layers: int = 2, n_vocab: int = 64) -> Gguf:
        """A sound model of some kilobytes: 64 wide, 4 heads, 2 of them for keys and values."""
        file = cls()
        file.keys = {
            "general.architecture": cls.string(arch),
            "general.name": cls.string("Small Test"),
            "general.file_type": cls.u32(7),
            f"{arch}.block_count": cls.u32(n_layers),
            f"{arch}.context_length": cls.u32(2048),
            f"{arch}.embedding_length": cls.u32(64),
            f"{arch}.feed_forward_length": cls.u32(128),
            f"{arch}.attention.head_count": cls.u32(4),
            f"{arch}.attention.head_count_kv": cls.u32(2),
            "tokenizer.ggml.tokens": cls.strings([f"t{i}" for i in range(n_vocab)]),
            "tokenizer.chat_template": cls.string("{{ messages }}"),
        }
        file.tensors = {"token_embd.weight": ((64, n_vocab), 8), "output.weight": ((64, n_vocab), 8)}
        file.tensors["output_norm.weight"] = ((64,), 0)
        for i in range(n_layers):
            file.tensors[f"blk.{i}.attn_k.weight"] = ((64, 32), 8)
            file.tensors[f"blk.{i}.ffn_up.weight"] = ((64, 128), 8)
            file.tensors[f"blk.{i}.ffn_norm.weight"] = ((64,), 0)
        return file

    def header(self) -> bytes:
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_keys = len(self.keys) if self.n_keys is None else self.n_keys
        parts = [b"GGUF", struct.pack("<IQQ", self.version, n_tensors, n_keys)]
        parts += [text(name) + value for name, value in self.keys.items()]
        end = 0
        for name, (shape, kind) in self.tensors.items():
            offset = self.offsets.get(name, end)
            parts.append(text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset))
            end += self.pad(self.n_bytes(name))
        return b"".join(parts)

    def build(self) -> bytes:
        header = self.header()
        n_data = sum(self.pad(self.n_bytes(name)) for name in self.tensors)
        return header.ljust(self.pad(len(header)), b"\0") + bytes(n_data)

    def n_bytes(self, name: str) -> int:
        shape, kind = self.tensors[name]
        block, block_bytes = SIZES.get(kind, (1, 1))
        elements: int = math.prod(shape)
        return elements // block * block_bytes

    def pad(self, n_bytes: int) -> int:
        return -(-n_bytes // self.alignment) * self.alignment


@pytest.fixture(scope="session")
def gguf() -> type[Gguf]:
    return Gguf
