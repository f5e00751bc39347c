"""What a client raises: one error class that carries the daemon's own words, and one for its absence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# Failures that gRPC reports before the daemon had a word; its own always carry an ErrorInfo.
WITHOUT_INFO = {
    "INVALID_ARGUMENT": "invalid",
    "NOT_FOUND": "not_found",
    "DEADLINE_EXCEEDED": "deadline",
    "CANCELLED": "cancelled",
    "UNIMPLEMENTED": "unsupported",
    "RESOURCE_EXHAUSTED": "too_large",  # a message over the limit is refused by gRPC itself
    "PERMISSION_DENIED": "permission_denied",
    "UNAUTHENTICATED": "unauthenticated",
}


class InferdError(Exception):
    """A request was refused or failed. `code` is from the daemon's closed list, such as "no_room"."""

    def __init__(
        self,
        code: str,
        message: str,
        retry_after_ms: int | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms  # None: coming back later does not help
        self.details = dict(details or {})  # limits and figures, by name

    @property
    def field(self) -> str | None:
        """The field of the request that was wrong, if one was."""
        return self.details.get("field")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, {self.message!r})"

    def __reduce__(self) -> tuple[type[InferdError], tuple[object, ...]]:
        return type(self), (self.code, self.message, self.retry_after_ms, self.details)


class Unreachable(InferdError):
    """No daemon answers at the address, or the one that did has gone away."""


def from_rpc(error: Any, address: str, *, heard: bool = False) -> InferdError:
    """Translate a failed gRPC call; `heard` says that the daemon had already answered something."""
    status, message = error.code().name, error.details() or ""
    rich = _rich_status(error)
    if rich is None:
        if status == "UNAVAILABLE":
            return Unreachable("unreachable", _absence(address, heard))
        return InferdError(WITHOUT_INFO.get(status, "internal"), message)
    from google.rpc import error_details_pb2

    code, retry_after_ms, details = WITHOUT_INFO.get(status, "internal"), None, {}
    for part in rich.details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if part.Unpack(info):
            code, details = info.reason.lower() or code, dict(info.metadata)
        elif part.Unpack(retry):
            retry_after_ms = retry.retry_delay.ToMilliseconds()
    return InferdError(code, message, retry_after_ms, details)


def _absence(address: str, heard: bool) -> str:
    if heard:
        return f"the daemon at {address} went away"
    # gRPC does not tell these apart, and tries either again.
    untrusted = ", or one side does not trust the other's certificate" if address.startswith("tls:") else ""
    return f"no daemon at {address}{untrusted}"


def _rich_status(error: Any) -> Any:
    """The google.rpc.Status in the trailers, or None. Imported late: most programs never fail."""
    from grpc_status import rpc_status

    try:
        return rpc_status.from_call(error)
    except ValueError:  # it contradicts the plain status: believe the plain one
        return None
