"""gRPC failures in the daemon's words."""

from __future__ import annotations

import pickle
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from inferd.protos.errors import InferdError, Unreachable, from_rpc


class Failed(grpc.RpcError):
    """A finished call as the library shows it."""

    def __init__(self, status: grpc.StatusCode, message: str = "", trailers: tuple[tuple[str, bytes], ...] = ()):
        super().__init__()
        self._status, self._message, self._trailers = status, message, trailers

    def code(self) -> grpc.StatusCode:
        return self._status

    def details(self) -> str:
        return self._message

    def trailing_metadata(self) -> Any:
        return self._trailers


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "invalid"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline"),
        (grpc.StatusCode.UNIMPLEMENTED, "unsupported"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too_large"),
        (grpc.StatusCode.INTERNAL, "internal"),
        (grpc.StatusCode.UNKNOWN, "internal"),
    ],
)
def test_a_bare_status_gets_the_nearest_word(status: Any, code: Any) -> None:
    error = from_rpc(Failed(status, "why"), "host:1")
    assert (type(error), error.code, error.message, error.details) == (InferdError, code, "why", {})


def test_nobody_there() -> None:
    error = from_rpc(Failed(grpc.StatusCode.UNAVAILABLE), "host:1")
    assert isinstance(error, Unreachable)
    assert str(error) == "no daemon at host:1"
    assert str(from_rpc(Failed(grpc.StatusCode.UNAVAILABLE), "host:1", heard=True)).endswith("went away")


def test_a_rich_status_that_contradicts_the_plain_one_is_not_believed() -> None:
    rich = status_pb2.Status(code=grpc.StatusCode.NOT_FOUND.value[0], message="other").SerializeToString()
    trailers = (("grpc-status-details-bin", rich),)
    assert from_rpc(Failed(grpc.StatusCode.INTERNAL, "why", trailers), "host:1").code == "internal"


def test_an_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(InferdError("no_room", "full", 100, {"field": "model"})))
    assert (error.code, error.message, error.retry_after_ms, error.field) == ("no_room", "full", 100, "model")
    assert isinstance(pickle.loads(pickle.dumps(Unreachable("unreachable", "gone"))), Unreachable)


def test_an_error_shows_its_code() -> None:
    assert repr(InferdError("no_room", "full")) == "InferdError('no_room', 'full')"
