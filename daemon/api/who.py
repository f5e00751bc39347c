"""Who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..domain.errors import Code, InferdError

if TYPE_CHECKING:
    import grpc

TENANT = "inferd-tenant"
DEFAULT_TENANT = "default"
OPERATOR = "operator"


def tenant(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The metadata's word, which is trusted on the Unix socket. Raises InferdError."""
    for key, value in context.invocation_metadata() or ():
        if key == TENANT:
            name = value.decode(errors="replace") if isinstance(value, bytes) else value
            if not 1 <= len(name) <= 64 or not name.isprintable():
                raise InferdError(Code.INVALID, f"{TENANT} must have 1 to 64 printable characters", field=TENANT)
            return name
    return DEFAULT_TENANT


def role(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """What the caller may do: who reaches the socket operates the daemon."""
    return OPERATOR
