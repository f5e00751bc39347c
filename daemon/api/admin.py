"""The gRPC door of who runs the daemon itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...protos import inferd_pb2 as pb
from ...protos import inferd_pb2_grpc as pb_grpc
from ..domain.errors import Code, InferdError
from .guard import guarded

if TYPE_CHECKING:
    import grpc

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
