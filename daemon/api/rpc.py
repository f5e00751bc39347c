"""The gRPC doors of requests and models: wire messages in, calls on the Node, wire messages out."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from ...protos import inferd_pb2 as pb
from ...protos import inferd_pb2_grpc as pb_grpc
from ..domain.errors import Code, InferdError
from ..node.planner import plan_load
from ..node.plans import options_for
from . import pooled, wire, wire_pull
from .admin import Admin
from .guard import guarded
from .jobs import Jobs
from .monitor import Monitor
from .who import only_tenant, tenant

if TYPE_CHECKING:
    import grpc

    from ..node.node import Node
    from ..node.stream import Stream
    from ..node.telemetry import Telemetry

    Context = grpc.aio.ServicerContext[Any, Any]

SERVICES = tuple(service.full_name for service in pb.DESCRIPTOR.services_by_name.values())
INFERENCE = pb.DESCRIPTOR.services_by_name["Inference"].full_name
JOBS = pb.DESCRIPTOR.services_by_name["Jobs"].full_name


class Inference(pb_grpc.InferenceServicer):
    def __init__(self, node: Node) -> None:
        self.node = node

    @guarded
    async def Generate(self, request: pb.GenerateRequest, context: Context) -> None:
        requests = wire.to_requests(request, tenant(context))
        streams: list[Stream] = []
        try:
            for one in requests:
                stream = self.node.submit(one)
                stream.read_by(asyncio.current_task())
                streams.append(stream)
            if len(streams) == 1:
                await _forward(streams[0], 0, context)
            else:
                await _forward_all(streams, context)
        except asyncio.CancelledError:
            # Cut while a write stood still: the status follows what the client has not read yet.
            if (error := next((stream.error for stream in streams if stream.error), None)) is None:
                raise
            raise error from None
        finally:
            for stream in streams:
                self.node.hang_up(stream)

    @guarded
    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeResponse:
        match request.WhichOneof("input"):
            case "prompt":
                text = wire.to_prompt(request.prompt)
                tokens = await self.node.tokenize(request.model, prompt=text)
            case "messages":
                messages = wire.to_messages(request.messages)
                tokens = await self.node.tokenize(request.model, messages=messages)
            case _:
                raise InferdError(Code.INVALID, "one of prompt or messages must be given", field="prompt")
        return pb.TokenizeResponse(tokens=tokens)

    @guarded
    async def Cancel(self, request: pb.CancelRequest, context: Context) -> pb.CancelResponse:
        whose = request.request_id, only_tenant(context)
        cancelled = self.node.controls.cancel(*whose) or await self.node.durable.cancel_waiting(*whose)
        return pb.CancelResponse(cancelled=cancelled)

    @guarded
    async def SetPriority(self, request: pb.SetPriorityRequest, context: Context) -> pb.SetPriorityResponse:
        priority = wire.to_priority(request.priority, must=True)
        order = request.request_id, priority, only_tenant(context)
        changed = self.node.controls.set_priority(*order) or await self.node.durable.move_waiting(*order)
        return pb.SetPriorityResponse(changed=changed)

    @guarded
    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        return await pooled.embed(self.node, request, tenant(context))

    @guarded
    async def Rerank(self, request: pb.RerankRequest, context: Context) -> pb.RerankResponse:
        return await pooled.rerank(self.node, request, tenant(context))


class Models(pb_grpc.ModelsServicer):
    def __init__(self, node: Node) -> None:
        self.node = node

    @guarded
    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        entries = await asyncio.to_thread(self.node.catalog.scan)
        deployments, aliases = self.node.fleet.deployments, self.node.aliases.by_model()
        rows = (
            wire.to_model_info(
                entry,
                deployments[name].model if name in deployments else None,
                options_for(name, self.node.config).adapters or (),
                aliases.get(name, ()),
            )
            for name, entry in sorted(entries.items())
        )
        return pb.ListModelsResponse(models=rows)

    @guarded
    async def LoadModel(self, request: pb.LoadModelRequest, context: Context) -> None:
        async with contextlib.aclosing(self.node.wishes.load(request.model)) as loading:
            async for model in loading:
                progress = pb.LoadProgress(state=model.state.value, progress=model.load_progress)
                if model.ready is not None:
                    progress.load_ms, progress.device = model.load_ms, model.ready.device
                await context.write(progress)

    @guarded
    async def UnloadModel(self, request: pb.UnloadModelRequest, context: Context) -> pb.UnloadModelResponse:
        return pb.UnloadModelResponse(was_loaded=await self.node.wishes.unload(request.model, request.force))

    @guarded
    async def PlanLoad(self, request: pb.PlanLoadRequest, context: Context) -> pb.PlanLoadResponse:
        return wire.to_plan(plan_load(self.node, request.model))

    @guarded
    async def Lease(self, request: pb.LeaseRequest, context: Context) -> None:
        async with contextlib.aclosing(self.node.wishes.lease(request.model)) as held:
            async for model in held:
                device = model.ready.device if model.ready is not None else ""
                await context.write(pb.LeaseState(state=model.state.value, device=device))

    @guarded
    async def Pin(self, request: pb.PinRequest, context: Context) -> pb.PinResponse:
        pinned = not request.HasField("pinned") or request.pinned
        return pb.PinResponse(was_pinned=self.node.controls.pin(request.model, pinned))

    @guarded
    async def PullModel(self, request: pb.PullModelRequest, context: Context) -> None:
        async with contextlib.aclosing(self.node.pulls.pull(wire_pull.to_order(request))) as pulling:
            async for progress in pulling:
                await context.write(wire_pull.to_progress(progress))

    @guarded
    async def SetAlias(self, request: pb.SetAliasRequest, context: Context) -> pb.SetAliasResponse:
        return pb.SetAliasResponse(previous_model=await self.node.aliases.set(request.alias, request.model))


async def _forward(stream: Stream, choice: int, context: Context) -> None:
    """The token path of one answer."""
    while events := await stream.take():
        for event in events:
            await context.write(wire.to_response(event, choice))


async def _forward_all(streams: list[Stream], context: Context) -> None:
    """Several answers on one call, which carries one message at a time; the first failure ends them all."""
    takes = {asyncio.ensure_future(stream.take()): choice for choice, stream in enumerate(streams)}
    try:
        while takes:
            done, _ = await asyncio.wait(takes, return_when=asyncio.FIRST_COMPLETED)
            for taken in done:
                choice = takes.pop(taken)
                for event in (events := taken.result()):
                    await context.write(wire.to_response(event, choice))
                if events:
                    takes[asyncio.ensure_future(streams[choice].take())] = choice
    finally:
        for taken in takes:
            taken.cancel()
        await asyncio.gather(*takes, return_exceptions=True)


def register(server: grpc.aio.Server, node: Node, telemetry: Telemetry) -> None:
    """Put our services on a server."""
    pb_grpc.add_InferenceServicer_to_server(Inference(node), server)
    pb_grpc.add_ModelsServicer_to_server(Models(node), server)
    pb_grpc.add_MonitorServicer_to_server(Monitor(node, telemetry), server)
    pb_grpc.add_AdminServicer_to_server(Admin(node), server)
    pb_grpc.add_JobsServicer_to_server(Jobs(node), server)
