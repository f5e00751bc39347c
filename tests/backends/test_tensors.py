from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.tensors import pack_strings, unpack_strings


@given(st.lists(st.text(max_size=9)))
def test_strings_come_back(values: list[str]) -> None:
    assert list(unpack_strings(pack_strings(value.encode() for value in values))) == values


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x05\0\0\0abc", "element 0 is longer"),
        (b"\x01\0\0\0a\x01", "element 1 is longer"),
        (b"\x01\0\0\0a\x01\0\0\0\xff", "element 1 is not valid UTF-8"),
    ],
)
def test_what_is_no_such_tensor_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        list(unpack_strings(data))
