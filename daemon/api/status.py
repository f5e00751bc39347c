"""Failures as gRPC says them: one status for each code, with what a client needs to act on it."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from ..domain.errors import Code, InferdError

# Code -> (status, google.rpc code); tests hold it complete.
STATUS: dict[Code, grpc.StatusCode] = {
    Code.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Code.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Code.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Code.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Code.PROMPT_TOO_LONG: grpc.StatusCode.INVALID_ARGUMENT,
    Code.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,  # as gRPC itself says it
    Code.UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
    Code.TEMPLATE_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Code.MODEL_CORRUPT: grpc.StatusCode.FAILED_PRECONDITION,
    Code.MODEL_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Code.PULL_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Code.NO_ROOM: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.NO_DISK: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.SUPERSEDED: grpc.StatusCode.CANCELLED,
    Code.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Code.CANCELLED: grpc.StatusCode.CANCELLED,
    Code.SLOW_CONSUMER: grpc.StatusCode.ABORTED,
    Code.WORKER_CRASHED: grpc.StatusCode.UNAVAILABLE,
    Code.WORKER_OOM: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.NO_SANDBOX: grpc.StatusCode.FAILED_PRECONDITION,
    Code.SHUTTING_DOWN: grpc.StatusCode.UNAVAILABLE,
    Code.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Code.BAD_CONFIG: grpc.StatusCode.FAILED_PRECONDITION,
    Code.INTERNAL: grpc.StatusCode.INTERNAL,
}
DOMAIN = "inferd"
MAX_MESSAGE_CHARS = 512  # it goes out twice, percent-encoded and in base64, and clients take 8 KiB of trailers


def to_status(error: InferdError) -> grpc.Status:
    """A status with google.rpc.ErrorInfo (reason = the Code) and, where it helps to come back, RetryInfo."""
    status = STATUS[error.code]
    metadata = {name: str(value) for name, value in error.details.items()}
    if error.field is not None:
        metadata["field"] = error.field
    details = [error_details_pb2.ErrorInfo(reason=error.code.value, domain=DOMAIN, metadata=metadata)]
    packed = [any_pb2.Any(), any_pb2.Any()]
    packed[0].Pack(details[0])
    if error.retry_after_ms is not None:
        delay = Duration()
        delay.FromMilliseconds(error.retry_after_ms)
        packed[1].Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    else:
        packed.pop()
    code = code_pb2.Code.Value(status.name)
    text = error.message if len(error.message) <= MAX_MESSAGE_CHARS else f"{error.message[: MAX_MESSAGE_CHARS - 1]}…"
    rich: grpc.Status = rpc_status.to_status(status_pb2.Status(code=code, message=text, details=packed))
    return rich
