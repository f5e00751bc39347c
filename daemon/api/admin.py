"""The gRPC door of who runs the daemon itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...protos import inferd_pb2 as pb
from ...protos import inferd_pb2_grpc as pb_grpc
from ..domain.access import check_role
from ..domain.errors import Code, InferdError
from .guard import guarded

if TYPE_CHECKING:
    import grpc

    from ..domain.access import Token
    from ..node.node import Node

    Context = grpc.aio.ServicerContext[Any, Any]


class Admin(pb_grpc.AdminServicer):
    def __init__(self, node: Node) -> None:
        self.node = node

    @guarded
    async def Drain(self, request: pb.DrainRequest, context: Context) -> pb.DrainResponse:
        draining = not request.HasField("draining") or request.draining
        return pb.DrainResponse(was_draining=self.node.controls.drain(draining))

    @guarded
    async def Reload(self, request: pb.ReloadRequest, context: Context) -> pb.ReloadResponse:
        if self.node.reload is None:
            raise InferdError(Code.UNSUPPORTED, "this daemon has no config that could be read again")
        merged = await self.node.reload()
        return pb.ReloadResponse(changed=merged.changed, needs_restart=merged.needs_restart)

    @guarded
    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenResponse:
        role = check_role(request.role, "role")
        ttl_s = request.ttl_s if request.HasField("ttl_s") else None
        text, token = await self.node.keyring.create(request.name, role, request.tenant, ttl_s)
        return pb.CreateTokenResponse(token=text, info=_info(token))

    @guarded
    async def ListTokens(self, request: pb.ListTokensRequest, context: Context) -> pb.ListTokensResponse:
        rows = [_info(held.token, held.last_used_unix_s) for held in self.node.keyring]
        return pb.ListTokensResponse(tokens=sorted(rows, key=lambda row: row.created_unix_s))

    @guarded
    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Context) -> pb.RevokeTokenResponse:
        return pb.RevokeTokenResponse(revoked=await self.node.keyring.revoke(request.id) is not None)


def _info(token: Token, last_used_unix_s: float | None = None) -> pb.TokenInfo:
    return pb.TokenInfo(
        id=token.id,
        name=token.name,
        role=token.role.value,
        tenant=token.tenant,
        created_unix_s=token.created_unix_s,
        expires_unix_s=token.expires_unix_s,
        last_used_unix_s=last_used_unix_s,
    )
