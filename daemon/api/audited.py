"""Which calls are told to the audit log, and what is told of them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc

from ..domain.access import Role
from ..policy.attempts import Attempts
from ..system.audit import Line
from ..system.tokens import without_secret
from . import who

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..system.audit import Audit

    Body = Callable[[Any, Any], Awaitable[Any]]
    Target = Callable[[Any], str]

MAX_TARGET_CHARS = 160

# What operators do -> what they do it to, in the words of the request.
ACTIONS: dict[str, Target] = {
    "/inferd.v1.Models/LoadModel": lambda r: r.model,
    "/inferd.v1.Models/Lease": lambda r: r.model,
    "/inferd.v1.Models/UnloadModel": lambda r: f"{r.model}{' by force' if r.force else ''}",
    "/inferd.v1.Models/Pin": lambda r: f"{r.model}{'' if not r.HasField('pinned') or r.pinned else ' no more'}",
    "/inferd.v1.Models/PullModel": lambda r: " ".join(filter(None, (r.repo, r.file, r.revision))),
    "/inferd.v1.Models/SetAlias": lambda r: f"{r.alias} is {r.model or 'nothing'}",
    "/inferd.v1.Admin/Drain": lambda r: "on" if not r.HasField("draining") or r.draining else "off",
    "/inferd.v1.Admin/Reload": lambda r: "",
    "/inferd.v1.Admin/CreateToken": lambda r: f"{r.name}: {r.role} of {r.tenant or r.name}",
    "/inferd.v1.Admin/ListTokens": lambda r: "",
    "/inferd.v1.Admin/RevokeToken": lambda r: r.id,
    "/inference.GRPCInferenceService/RepositoryModelLoad": lambda r: r.model_name,
    "/inference.GRPCInferenceService/RepositoryModelUnload": lambda r: r.model_name,
}
# What everybody does to requests of its own -> the id of the request: told where it is another tenant's.
TO_REQUESTS: dict[str, Target] = {
    "/inferd.v1.Inference/Cancel": lambda r: r.request_id,
    "/inferd.v1.Inference/SetPriority": lambda r: r.request_id,
}
TO_JOBS: dict[str, Target] = {"/inferd.v1.Jobs/CancelJob": lambda r: r.id}  # told where the caller may end anybody's
STATUS = {status.value[0]: status.name for status in grpc.StatusCode}


class Audited:
    """`tenant_of`: whose request an id is; None where nothing of it is live."""

    def __init__(self, audit: Audit, tenant_of: Callable[[str], str | None]) -> None:
        self._audit = audit
        self._tenant_of = tenant_of
        self._denials = Attempts()

    def watch(self, method: str, handler: Any) -> Any:
        """The handler, which tells what it did where that is to be told."""
        if method not in ACTIONS and method not in TO_REQUESTS and method not in TO_JOBS:
            return handler
        kind = "unary_unary" if handler.unary_unary is not None else "unary_stream"
        body = getattr(handler, kind)

        async def run(request: Any, context: Any) -> Any:
            return await self.run(method, body, request, context)

        return handler._replace(**{kind: run})

    async def run(self, method: str, body: Body, request: Any, context: Any) -> Any:
        """The method itself, and a line when it is over."""
        target = self._target(method, request)
        if target is None:
            return await body(request, context)
        outcome = "CANCELLED"
        try:
            result = await body(request, context)
            outcome = "ok"
            return result
        except asyncio.CancelledError:
            raise
        except BaseException:  # gRPC's own, which says nothing; the context knows
            outcome = STATUS.get(_code(context), "UNKNOWN")
            raise
        finally:
            self._note(method, target, outcome, context.peer())

    def denied(self, method: str, peer: str) -> None:
        """Somebody tried what only operators do; nothing was read of it. Who goes on trying cannot fill the log."""
        if method in ACTIONS and not self._denials.note(peer, time.monotonic()):
            self._note(method, "", grpc.StatusCode.PERMISSION_DENIED.name, peer)

    def _target(self, method: str, request: Any) -> str | None:
        """None: it is not to be told."""
        if not hasattr(request, "DESCRIPTOR"):  # bytes that were no message
            return None
        principal = who.principal()
        if (of := ACTIONS.get(method)) is not None:
            return of(request)
        if (of := TO_REQUESTS.get(method)) is not None:
            owner = self._tenant_of(of(request))
            others = owner != principal.tenant or principal.names_its_tenant
            return of(request) if owner is not None and others else None
        if (of := TO_JOBS.get(method)) is not None and principal.role.covers(Role.OPERATOR):
            return of(request)
        return None

    def _note(self, method: str, target: str, outcome: str, peer: str) -> None:
        call = who.current()
        principal = call.principal
        line = Line(
            unix_s=time.time(),
            who=principal.token_id or principal.how,
            role=principal.role.value,
            tenant=principal.tenant,
            door=call.door.name,
            peer=peer,
            method=method.rpartition("/")[2],
            target=without_secret(target)[:MAX_TARGET_CHARS],
            outcome=outcome,
        )
        self._audit.note(line)


def _code(context: Any) -> int:
    code = context.code()
    return code.value[0] if isinstance(code, grpc.StatusCode) else int(code)
