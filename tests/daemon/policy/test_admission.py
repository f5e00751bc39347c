"""Who is let in."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inferd.daemon.policy.admission import AdmitQuestion, Occupancy, Refusal, admit

FREE = Occupancy(0, 100)
QUESTION = AdmitQuestion("r", 0, 10, FREE, FREE, FREE, FREE)


def ask(**changes: Any) -> Refusal | None:
    return admit(msgspec.structs.replace(QUESTION, **changes))


def test_it_is_let_in_when_nothing_speaks_against_it() -> None:
    assert ask() is None


@pytest.mark.parametrize(
    ("field", "refusal"),
    [
        ("requests", Refusal.REQUESTS),
        ("tenant_requests", Refusal.TENANT_REQUESTS),
        ("queued_tokens", Refusal.TOKENS),
        ("tenant_tokens", Refusal.TENANT_TOKENS),
    ],
)
def test_each_cap_refuses_when_it_would_be_passed(field: str, refusal: Refusal) -> None:
    more = 1 if "requests" in field else 10
    assert ask(**{field: Occupancy(100 - more, 100)}) is None
    assert ask(**{field: Occupancy(101 - more, 100)}) is refusal


def test_one_that_is_larger_than_the_cap_is_let_in_when_nothing_waits() -> None:
    assert ask(tokens=1000) is None
    assert ask(tokens=1000, queued_tokens=Occupancy(1, 100)) is Refusal.TOKENS


def test_under_pressure_batch_goes_first() -> None:
    assert ask(pressure=2, rank=2) is None
    assert ask(pressure=3, rank=2) is Refusal.SHED
    assert ask(pressure=3, rank=1) is None
    assert ask(pressure=4, rank=0) is Refusal.PRESSURE


def test_a_first_token_that_comes_too_late_for_its_class_is_not_waited_for() -> None:
    assert ask(first_token_ms=900.0, first_token_limit_ms=1000.0) is None
    assert ask(first_token_ms=1100.0, first_token_limit_ms=1000.0) is Refusal.WAIT
    assert ask(first_token_ms=1100.0) is None
    assert ask(first_token_limit_ms=1000.0) is None


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    assert ask(finish_ms=900.0, deadline_ms=1000.0) is None
    assert ask(finish_ms=1100.0, deadline_ms=1000.0) is Refusal.DEADLINE
    assert ask(deadline_ms=1.0) is None  # nothing is known yet


def test_a_promise_to_somebody_else_is_kept() -> None:
    assert ask(least_slack_ms=50.0, delays_ms=40.0) is None
    assert ask(least_slack_ms=50.0, delays_ms=60.0) is Refusal.CROWDED


def test_bytes_of_tensors_have_a_cap_of_their_own() -> None:
    assert ask(n_bytes=10, tensor_bytes=Occupancy(90, 100)) is None
    assert ask(n_bytes=11, tensor_bytes=Occupancy(90, 100)) is Refusal.TENSOR_BYTES
    assert ask(n_bytes=1000, tensor_bytes=FREE) is None
    assert ask(tensor_bytes=Occupancy(1000, 100)) is None  # it brings none
