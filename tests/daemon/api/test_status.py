"""Failures as clients see them: a status, a reason, and when to come back."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from inferd.daemon.api import status as it
from inferd.daemon.domain.errors import Code, InferdError


def details(error: InferdError) -> tuple[grpc.Status, error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo | None]:
    status = it.to_status(error)
    rich = status_pb2.Status.FromString(dict(status.trailing_metadata)["grpc-status-details-bin"])
    assert (rich.code, rich.message) == (status.code.value[0], status.details)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert rich.details[0].Unpack(info)
    return status, info, retry if len(rich.details) > 1 and rich.details[1].Unpack(retry) else None


@pytest.mark.parametrize("code", Code)
def test_every_failure_has_a_status_and_its_reason(code: Code) -> None:
    status, info, retry = details(InferdError(code, "why"))
    assert status.code is it.STATUS[code]
    assert code_pb2.Code.Value(status.code.name) == status.code.value[0]
    assert (info.reason, info.domain, dict(info.metadata)) == (code.value, "inferd", {})
    assert retry is None


def test_what_is_refused_for_now_differs_from_what_is_wrong() -> None:
    again = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
    assert {code for code, status in it.STATUS.items() if status in again} - {Code.TOO_LARGE} == {
        Code.NO_DISK,
        Code.NO_ROOM,
        Code.QUEUE_FULL,
        Code.OVERLOADED,
        Code.WORKER_CRASHED,
        Code.WORKER_OOM,
        Code.SHUTTING_DOWN,
        Code.DRAINING,
    }


def test_fields_limits_and_the_time_to_come_back() -> None:
    error = InferdError(Code.NO_ROOM, "full", field="model", retry_after_ms=1500, needed_bytes=10, free_bytes=5)
    _, info, retry = details(error)
    assert dict(info.metadata) == {"field": "model", "needed_bytes": "10", "free_bytes": "5"}
    assert retry is not None
    assert retry.retry_delay.ToMilliseconds() == 1500


def test_a_long_message_still_fits_a_clients_trailers() -> None:
    status, _, _ = details(InferdError(Code.INVALID, "\N{GRINNING FACE}" * 100_000))
    assert len(status.details) == it.MAX_MESSAGE_CHARS
    percent_encoded = 3 * len(status.details.encode())
    assert percent_encoded + sum(len(value) for _, value in status.trailing_metadata) * 4 / 3 < 10_000
