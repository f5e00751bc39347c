"""Who asks, as the methods of a call see it: `access` says so once, in the task that serves the call."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc

    from ..domain.access import Door, Principal
    from ..domain.errors import InferdError

    Context = grpc.aio.ServicerContext[Any, Any]


class Call:
    """One call under way."""

    __slots__ = ("cut", "door", "principal")

    def __init__(self, principal: Principal, door: Door) -> None:
        self.principal = principal
        self.door = door
        self.cut: InferdError | None = None  # why it is being ended from outside


_current: ContextVar[Call] = ContextVar("call")


def begin(principal: Principal, door: Door) -> Call:
    """What the task that runs now serves."""
    call = Call(principal, door)
    _current.set(call)
    return call


def current() -> Call:
    """The call that runs; that there is none is a fault of ours, and lets nobody through."""
    return _current.get()


def cut() -> InferdError | None:
    """Why the call is being ended from outside, if it is."""
    call = _current.get(None)
    return None if call is None else call.cut


def principal() -> Principal:
    """Who it is."""
    return current().principal


def tenant(context: Context) -> str:
    """Whose request it is."""
    return principal().tenant


def role(context: Context) -> str:
    """What the caller may do."""
    return principal().role.value


def only_tenant(context: Context) -> str | None:
    """Whose requests the caller may see to; None: everybody's."""
    return principal().only_tenant
