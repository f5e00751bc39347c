"""The tables agree with the format's own library."""

from __future__ import annotations

import gguf as library

from inferd.backends.llama.ggml_types import FILE_TYPES, TENSOR_TYPES


def test_block_sizes() -> None:
    for number, (name, block, n_bytes) in TENSOR_TYPES.items():
        if name in ("Q8_1", "Q2_0"):
            continue  # the library has an old size of the first and may not know the second
        kind = library.GGMLQuantizationType(number)
        assert (kind.name, library.GGML_QUANT_SIZES[kind]) == (name, (block, n_bytes))
    assert TENSOR_TYPES[9].n_bytes == 2 + 2 + 32  # scale, sum and 32 bytes


def test_every_type_of_the_library_is_known() -> None:
    assert {int(kind) for kind in library.GGML_QUANT_SIZES} <= TENSOR_TYPES.keys()


def test_file_types() -> None:
    for number, name in FILE_TYPES.items():
        if number not in {int(kind) for kind in library.LlamaFileType}:
            continue
        assert library.LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_") == name
