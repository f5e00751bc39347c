"""What a GGUF header says: keys and tensors, read strictly because the file may be hostile.

Every count and length is checked against a limit and the file's size before a byte of it is fetched. The file
is read with `pread`, not mapped: a mapped file that somebody cuts short would kill the daemon with SIGBUS.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import NamedTuple

from ..facts import CorruptModel
from .ggml_types import TENSOR_TYPES

MAGIC = b"GGUF"
MAX_HEADER_BYTES = 256 << 20  # the largest vocabularies take 16 MiB
MAX_KEYS = 2048
MAX_TENSORS = 65_536
MAX_ARRAY_STRINGS = 2 << 20  # in all arrays together: what bounds the time of a scan
MAX_KEY_BYTES = 1024
MAX_TENSOR_NAME_BYTES = 63  # llama.cpp's own limit, as are the four dimensions
MAX_DIMS = 4
MAX_ELEMENTS = 2**63 - 1
MAX_ALIGNMENT = 1 << 20
KEPT_STRING_BYTES = 1024  # of a longer text only the beginning is kept
KEPT_ELEMENTS = 512  # of a longer array only the length is kept; one element per layer fits

_CHUNK_BYTES = 256 << 10
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: _U32,
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: _U64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9


class ArrayLength(NamedTuple):
    """Stands for an array whose elements were skipped."""

    n: int


class Tensor(NamedTuple):
    name: str
    type_name: str
    shape: tuple[int, ...]  # the row length first, as the format has it
    offset_bytes: int  # from the beginning of the file
    n_bytes: int
    n_elements: int


Value = bool | int | float | str | tuple[int | float, ...] | ArrayLength


class Header(NamedTuple):
    """One file's header."""

    version: int
    file_bytes: int
    keys: dict[str, Value]
    tensors: tuple[Tensor, ...]


def read_header(path: str | os.PathLike[str]) -> Header:
    """Raises CorruptModel, whose sentence names what is wrong and never the path."""
    try:
        # O_NONBLOCK: opening a FIFO must not wait for somebody to write into it.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise CorruptModel(_unreadable(error)) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise CorruptModel("not a regular file")
        return _read(_Source(fd, status.st_size))
    except OSError as error:
        raise CorruptModel(_unreadable(error)) from None
    finally:
        os.close(fd)


def printable(text: str, limit: int = 100) -> str:
    """Text out of a file, made safe for a terminal and a log line."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


class _Source:
    """The file read forwards in chunks; `where` names the thing being read, for the sentence of an error."""

    def __init__(self, fd: int, file_bytes: int) -> None:
        self.fd = fd
        self.file_bytes = file_bytes
        self.where = "the header"
        self.strings_left = MAX_ARRAY_STRINGS
        self._chunk = b""
        self._chunk_start = 0
        self._at = 0

    def tell(self) -> int:
        return self._chunk_start + self._at

    def require(self, n_bytes: int) -> None:
        """The next `n_bytes` lie inside the file and the header limit."""
        end = self.tell() + n_bytes
        if end > self.file_bytes:
            raise CorruptModel(f"truncated: {self.where} ends at byte {end:,} but the file has {self.file_bytes:,}")
        if end > MAX_HEADER_BYTES:
            raise CorruptModel(
                f"{self.where} ends at byte {end:,} but a header may have {MAX_HEADER_BYTES:,} bytes at most"
            )

    def take(self, n_bytes: int) -> bytes:
        self.require(n_bytes)
        if self._at + n_bytes > len(self._chunk):
            self._fetch(n_bytes)
        start = self._at
        self._at += n_bytes
        return self._chunk[start : self._at]

    def skip(self, n_bytes: int) -> None:
        self.require(n_bytes)
        self._at += n_bytes

    def number(self, form: struct.Struct) -> int:
        return int(form.unpack(self.take(form.size))[0])

    def text(self, max_bytes: int, keep_bytes: int) -> str:
        n_bytes = self.number(_U64)
        self.require(n_bytes)
        if n_bytes > max_bytes:
            raise CorruptModel(f"{self.where} has a length of {n_bytes:,} bytes but {max_bytes:,} are allowed")
        kept = self.take(min(n_bytes, keep_bytes))
        self.skip(n_bytes - len(kept))
        return kept.decode("utf-8", "replace")

    def skip_strings(self, n: int) -> None:
        """The one hot loop: a vocabulary has up to 262,144 tokens and as many merges."""
        self.require(8 * n)
        if n > self.strings_left:
            raise CorruptModel(
                f"{self.where} brings the strings in arrays over the {MAX_ARRAY_STRINGS:,} that are allowed"
            )
        self.strings_left -= n
        unpack = _U64.unpack_from
        while n:
            if self._at + 8 > len(self._chunk):
                self.require(8)
                self._fetch(8)
            chunk, at, last = self._chunk, self._at, len(self._chunk) - 8
            while n and at <= last:
                at += 8 + unpack(chunk, at)[0]
                n -= 1
            self._at = at
            self.require(0)

    def _fetch(self, n_bytes: int) -> None:
        start = self.tell()
        chunk = os.pread(self.fd, max(n_bytes, _CHUNK_BYTES), start)
        if len(chunk) < n_bytes:
            raise CorruptModel(f"truncated while it was read, at byte {start + len(chunk):,}")
        self._chunk, self._chunk_start, self._at = chunk, start, 0


def _read(source: _Source) -> Header:
    version, n_tensors, n_keys = _preamble(source)
    keys: dict[str, Value] = {}
    for i in range(n_keys):
        source.where = f"key {i + 1} of {n_keys}"
        name = source.text(MAX_KEY_BYTES, MAX_KEY_BYTES)
        if not name:
            raise CorruptModel(f"{source.where} has no name")
        source.where = f"key {printable(name)}"
        if name in keys:
            raise CorruptModel(f"{source.where} appears twice")
        keys[name] = _value(source)
    rows = _tensor_rows(source, n_tensors)
    return Header(version, source.file_bytes, keys, _place(source, rows, _alignment(keys)))


def _preamble(source: _Source) -> tuple[int, int, int]:
    if source.file_bytes < 24:
        raise CorruptModel(f"truncated: a header ends at byte 24 but the file has {source.file_bytes}")
    if source.take(4) != MAGIC:
        raise CorruptModel("not a GGUF file: it does not begin with 'GGUF'")
    version = source.number(_U32)
    if version & 0xFFFF == 0:
        raise CorruptModel("a big-endian GGUF file; only little-endian ones are supported")
    if version not in (2, 3):
        raise CorruptModel(f"GGUF version {version} is not supported; 2 and 3 are")
    n_tensors, n_keys = source.number(_U64), source.number(_U64)
    if n_tensors > MAX_TENSORS:
        raise CorruptModel(f"the header counts {n_tensors:,} tensors but {MAX_TENSORS:,} are allowed")
    if n_keys > MAX_KEYS:
        raise CorruptModel(f"the header counts {n_keys:,} keys but {MAX_KEYS:,} are allowed")
    return version, n_tensors, n_keys


def _value(source: _Source) -> Value:
    kind = source.number(_U32)
    if kind == _STRING:
        return source.text(MAX_HEADER_BYTES, KEPT_STRING_BYTES)
    if kind == _ARRAY:
        return _array(source)
    form = _SCALARS.get(kind)
    if form is None:
        raise CorruptModel(f"{source.where} has the unknown value type {kind}")
    value: bool | int | float = form.unpack(source.take(form.size))[0]
    return value


def _array(source: _Source) -> Value:
    kind, n = source.number(_U32), source.number(_U64)
    if kind == _STRING:
        source.skip_strings(n)
        return ArrayLength(n)
    form = _SCALARS.get(kind)
    if form is None:
        what = "an array of arrays" if kind == _ARRAY else f"an array of the unknown value type {kind}"
        raise CorruptModel(f"{source.where} is {what}")
    if n > KEPT_ELEMENTS:
        source.skip(n * form.size)
        return ArrayLength(n)
    return tuple(element for (element,) in form.iter_unpack(source.take(n * form.size)))


def _alignment(keys: dict[str, Value]) -> int:
    alignment = keys.get("general.alignment", 32)
    if type(alignment) is not int or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise CorruptModel(f"general.alignment must be a power of two up to {MAX_ALIGNMENT:,}")
    return alignment


def _tensor_rows(source: _Source, n_tensors: int) -> list[Tensor]:
    """The tensors with offsets as the file has them, relative to the data section."""
    rows: list[Tensor] = []
    seen: set[str] = set()
    for i in range(n_tensors):
        source.where = f"tensor {i + 1} of {n_tensors}"
        name = source.text(MAX_TENSOR_NAME_BYTES, MAX_TENSOR_NAME_BYTES)
        if not name:
            raise CorruptModel(f"{source.where} has no name")
        source.where = f"tensor {printable(name)}"
        if name in seen:
            raise CorruptModel(f"{source.where} appears twice")
        seen.add(name)
        rows.append(_tensor_row(source, name))
    return rows


def _tensor_row(source: _Source, name: str) -> Tensor:
    n_dims = source.number(_U32)
    if not 1 <= n_dims <= MAX_DIMS:
        raise CorruptModel(f"{source.where} has {n_dims:,} dimensions but 1 to {MAX_DIMS} are allowed")
    shape = struct.unpack(f"<{n_dims}Q", source.take(8 * n_dims))
    n_elements = 1
    for n in shape:
        n_elements *= n
    if n_elements == 0:
        raise CorruptModel(f"{source.where} has a dimension of zero")
    if n_elements > MAX_ELEMENTS:
        raise CorruptModel(f"{source.where} has {n_elements:,} elements but {MAX_ELEMENTS:,} are allowed")
    number = source.number(_U32)
    kind = TENSOR_TYPES.get(number)
    if kind is None:
        raise CorruptModel(f"{source.where} has the unknown type {number}")
    if shape[0] % kind.block:
        raise CorruptModel(
            f"{source.where} has rows of {shape[0]:,} elements but {kind.name} has blocks of {kind.block}"
        )
    n_bytes = n_elements // kind.block * kind.n_bytes
    return Tensor(name, kind.name, shape, source.number(_U64), n_bytes, n_elements)


def _place(source: _Source, rows: list[Tensor], alignment: int) -> tuple[Tensor, ...]:
    """Offsets from the beginning of the file. llama.cpp refuses data out of order or with gaps: so do we."""
    start_bytes = _padded(source.tell(), alignment)
    expected = 0
    placed = []
    for row in rows:
        if row.offset_bytes != expected:
            raise CorruptModel(
                f"tensor {printable(row.name)} begins at byte {row.offset_bytes:,} of the data"
                f" but {expected:,} was expected"
            )
        end = start_bytes + expected + row.n_bytes
        if end > source.file_bytes:
            raise CorruptModel(
                f"truncated: tensor {printable(row.name)} ends at byte {end:,} but the file has {source.file_bytes:,}"
            )
        placed.append(row._replace(offset_bytes=start_bytes + expected))
        expected += _padded(row.n_bytes, alignment)
    return tuple(placed)


def _padded(n_bytes: int, alignment: int) -> int:
    return (n_bytes + alignment - 1) // alignment * alignment


def _unreadable(error: OSError | ValueError) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else "bad file name"
    return f"cannot be read: {reason}"
