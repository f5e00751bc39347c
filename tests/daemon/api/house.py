"""A Node whose models run on the fake engine, behind the doors of a real gRPC server in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from inferd.daemon.domain.errors import Code, InferdError
from inferd.protos import inferd_pb2 as pb
from inferd.protos import inferd_pb2_grpc as stubs
from inferd.protos.errors import from_rpc

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from inferd.daemon.node.node import Node

WAIT_S = 10.0


class House:
    """A Node behind its doors."""

    def __init__(self, node: Node, channel: grpc.aio.Channel) -> None:
        self.node = node
        self.channel = channel
        self.inference: Any = stubs.InferenceStub(channel)
        self.models: Any = stubs.ModelsStub(channel)
        self.monitor: Any = stubs.MonitorStub(channel)
        self.admin: Any = stubs.AdminStub(channel)

    async def generate(self, **given: Any) -> list[pb.GenerateResponse]:
        request = pb.GenerateRequest(**{"model": "small", "prompt": "fake:tokens=3"} | given)
        return [event async for event in self.inference.Generate(request, timeout=WAIT_S)]


async def refused(call: Awaitable[Any]) -> InferdError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = from_rpc(caught.value, "")
    return InferdError(Code(error.code), error.message, field=error.field)
