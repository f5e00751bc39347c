"""The closed list of failures is what clients may rely on."""

from __future__ import annotations

import pytest

from inferd.daemon.domain.errors import Code, InferdError


@pytest.mark.parametrize("code", Code)
def test_a_reason_is_the_name_in_lower_case(code: Code) -> None:
    assert code.value == code.name.lower()


def test_an_error_carries_what_a_door_needs() -> None:
    error = InferdError(Code.NO_ROOM, "no room", field="model", retry_after_ms=5, free_bytes=7)
    assert str(error) == error.message == "no room"
    assert (error.code, error.field, error.retry_after_ms) == (Code.NO_ROOM, "model", 5)
    assert error.details == {"free_bytes": 7}


def test_what_is_not_said_is_missing() -> None:
    error = InferdError(Code.INTERNAL, "oh")
    assert (error.field, error.retry_after_ms, error.details) == (None, None, {})
