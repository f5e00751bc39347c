"""Which failures do not end a job, and whom they keep waiting."""

from __future__ import annotations

import pytest

from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.node.later import FORGET_S, PATIENCE_S, Later, is_alone

RESTS = InferdError(Code.MODEL_FAILED, "in back-off", retry_after_ms=1000)
NO_ROOM = InferdError(Code.NO_ROOM, "too large for now", retry_after_ms=5000)


@pytest.mark.parametrize("code", Code)
def test_every_failure_is_an_end_or_is_for_now(code: Code) -> None:
    for_now = code in (Code.QUEUE_FULL, Code.OVERLOADED, Code.DRAINING, Code.SHUTTING_DOWN)
    assert Later().is_for_now(InferdError(code, "why"), "m", 0.0) is for_now


def test_an_id_that_is_live_is_for_now() -> None:
    assert Later().is_for_now(InferdError(Code.INVALID, "in use", field="request_id"), "m", 0.0)
    assert not Later().is_for_now(InferdError(Code.INVALID, "no such adapter", field="lora"), "m", 0.0)


@pytest.mark.parametrize("error", [RESTS, NO_ROOM])
def test_a_model_that_fails_is_waited_for_and_not_for_ever(error: InferdError) -> None:
    later = Later()
    times = [float(at) for at in range(0, int(PATIENCE_S), 60)]
    assert all(later.is_for_now(error, "m", at_s) for at_s in times)
    assert later.is_for_now(error, "other", PATIENCE_S)
    assert not later.is_for_now(error, "m", PATIENCE_S)
    assert later.is_for_now(error, "m", PATIENCE_S + 2 * FORGET_S)  # nobody has tried it since


def test_one_that_answers_is_well() -> None:
    later = Later()
    for at_s in range(0, int(3 * PATIENCE_S), 60):
        assert later.is_for_now(RESTS, "m", float(at_s))
        later.is_well("m")


@pytest.mark.parametrize(
    ("error", "alone"),
    [
        (InferdError(Code.OVERLOADED, "its deadline", reason="deadline"), True),
        (InferdError(Code.OVERLOADED, "its first token", reason="wait"), True),
        (InferdError(Code.OVERLOADED, "memory", reason="pressure"), False),
        (InferdError(Code.OVERLOADED, "memory", reason="shed"), False),
        (InferdError(Code.INVALID, "in use", field="request_id"), True),
        (InferdError(Code.QUEUE_FULL, "full"), False),
        (RESTS, False),
        (NO_ROOM, False),
    ],
)
def test_whose_reason_it_is(error: InferdError, alone: bool) -> None:
    assert is_alone(error) is alone
