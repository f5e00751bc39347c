"""The one place where it is found out who calls, and where those are refused who may not."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import grpc

from ..domain.access import DEFAULT_TENANT, Principal, Role, check_name
from ..domain.errors import Code, InferdError
from ..policy.attempts import MOST, Attempts
from . import who
from .guard import abort
from .roles import ANYONE, LEAST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..domain.access import Door
    from ..node.keyring import Keyring
    from .audited import Audited

    Body = Callable[[Any, Any], Awaitable[Any]]

log = logging.getLogger(__name__)

TENANT = "inferd-tenant"  # metadata: whose request it is, where no token or certificate says so
AUTHORIZATION = "authorization"  # metadata: `Bearer` and a token
PAUSE_S = 1.0  # before the answer to a peer that has tried too many tokens
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Gate:
    """What all doors share: the tokens, the calls that came with one, and who tried in vain."""

    def __init__(self, keyring: Keyring, audited: Audited) -> None:
        self.keyring = keyring
        self.audited = audited
        self._wrong, self._told = Attempts(), Attempts(most=1)
        self._live: dict[str, set[tuple[asyncio.Task[Any], who.Call]]] = {}  # by the token's id
        keyring.on_revoked = self._on_revoked

    def too_often(self, peer: str, now_s: float) -> bool:
        """One more wrong token of this peer."""
        too_often = self._wrong.note(peer, now_s)
        if too_often and not self._told.note(peer, now_s):
            log.warning("more than %d wrong tokens a minute from %s", MOST, peer)
        return too_often

    def began(self, call: who.Call, left_s: float) -> None:
        """The task that runs now serves a call that came with a token; it ends with the token."""
        task, token_id = asyncio.current_task(), call.principal.token_id
        assert task is not None
        entry = (task, call)
        self._live.setdefault(token_id, set()).add(entry)
        loop = asyncio.get_running_loop()
        alarm = loop.call_later(left_s, _cut, *entry, "this token has expired") if left_s < 1e9 else None

        def over(_: object) -> None:
            if alarm is not None:
                alarm.cancel()
            self._live[token_id].discard(entry)
            if not self._live[token_id]:
                del self._live[token_id]

        task.add_done_callback(over)

    def _on_revoked(self, token_id: str) -> None:
        for task, call in list(self._live.get(token_id, ())):
            _cut(task, call, "this token was revoked")


def _cut(task: asyncio.Task[Any], call: who.Call, message: str) -> None:
    # Who revokes its own token is answered still.
    if task is not asyncio.current_task():
        call.cut = InferdError(Code.UNAUTHENTICATED, message)
        task.cancel()


class Access(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Of one door; before any other, so that nothing is read of those who may not."""

    def __init__(self, door: Door, gate: Gate) -> None:
        self._door = door
        self._gate = gate

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if method not in LEAST:
            return None  # gRPC says UNIMPLEMENTED
        if (least := LEAST[method]) is ANYONE:
            return await continuation(handler_call_details)
        token, tenant = _brought(handler_call_details.invocation_metadata)
        try:
            if token is None and self._door.certificate_role is not None:
                handler = await continuation(handler_call_details)
                return None if handler is None else _around(handler, self._by_certificate(method, least))
            self._begin(self._principal(token, tenant), least)
        except InferdError as error:
            return self._refusal(method, error, tried=token is not None)
        handler = await continuation(handler_call_details)
        return handler if handler is None else self._gate.audited.watch(method, handler)

    def _principal(self, token: str | None, tenant: str) -> tuple[Principal, float]:
        """(who it is, how many s that holds). Raises UNAUTHENTICATED."""
        door = self._door
        if token is not None:
            held, left_s = self._gate.keyring.holder(token)
            return Principal(held.role, held.tenant, "token", held.id), left_s
        if door.role is None:
            raise InferdError(Code.UNAUTHENTICATED, "a token is needed here: metadata `authorization: Bearer TOKEN`")
        how = "loopback" if door.name == "tcp" else "socket"
        # Who may see everybody's may also act for everybody; others would see theirs by saying that they are they.
        named = tenant if door.role.covers(Role.OPERATOR) else DEFAULT_TENANT
        return Principal(door.role, check_name(named, TENANT), how), 0.0

    def _begin(self, found: tuple[Principal, float], least: Role) -> who.Call:
        """From here on the call is that of this principal. Raises PERMISSION_DENIED."""
        principal, left_s = found
        call = who.begin(principal, self._door)
        if not principal.role.covers(least):
            message = f"this needs the role {least.value}, and yours is {principal.role.value}"
            raise InferdError(Code.PERMISSION_DENIED, message, needs=least.value, role=principal.role.value)
        if principal.token_id:
            self._gate.began(call, left_s)
        return call

    def _by_certificate(self, method: str, least: Role) -> Callable[[Body], Body]:
        """Only the call itself knows the certificate that it came with."""

        def around(body: Body) -> Body:
            async def run(request: Any, context: Any) -> Any:
                try:
                    self._begin((_certified(context.auth_context(), self._door), 0.0), least)
                except InferdError as error:
                    return await self._refuse(method, error, context, tried=False)
                return await self._gate.audited.run(method, body, request, context)

            return run

        return around

    def _refusal(self, method: str, error: InferdError, *, tried: bool) -> Any:
        async def refuse(_requests: Any, context: Any) -> None:
            await self._refuse(method, error, context, tried=tried)

        # Whatever the method takes: of this kind nothing is read before it answers.
        return grpc.stream_stream_rpc_method_handler(refuse)

    async def _refuse(self, method: str, error: InferdError, context: Any, *, tried: bool) -> None:
        wrong = tried and error.code is Code.UNAUTHENTICATED
        if wrong and self._gate.too_often(peer_of(context), time.monotonic()):
            await asyncio.sleep(PAUSE_S)
        if error.code is Code.PERMISSION_DENIED:
            self._gate.audited.denied(method, peer_of(context))
        await abort(context, error)


def peer_of(context: Any) -> str:
    """Where a call comes from, without the port, which changes with every connection."""
    peer: str = context.peer()
    return peer if peer.startswith("unix:") else peer.rpartition(":")[0]


def _brought(metadata: Any) -> tuple[str | None, str]:
    """(the token, the tenant) of a call's metadata."""
    token, tenant = None, DEFAULT_TENANT
    for key, value in metadata or ():
        if key == AUTHORIZATION:
            kind, _, given = _text(value).partition(" ")
            token = given.strip() if kind.lower() == "bearer" else ""
        elif key == TENANT:
            tenant = _text(value)
    return token, tenant


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _certified(facts: Any, door: Door) -> Principal:
    """By the certificate that was checked as the connection was made. Raises UNAUTHENTICATED."""
    assert door.certificate_role is not None
    names = facts.get("x509_common_name") or ()
    try:
        tenant = check_name(names[0].decode() if names else "", "the certificate's common name")
    except (InferdError, UnicodeDecodeError):
        message = "a token or a certificate with a common name is needed here"
        raise InferdError(Code.UNAUTHENTICATED, message) from None
    return Principal(door.certificate_role, tenant, "certificate")


def _around(handler: Any, wrap: Callable[[Body], Body]) -> Any:
    """The same handler, with something around its method."""
    kind = next(kind for kind in KINDS if getattr(handler, kind) is not None)
    return handler._replace(**{kind: wrap(getattr(handler, kind))})
