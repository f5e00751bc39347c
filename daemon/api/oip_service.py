"""inference.GRPCInferenceService: the Open Inference Protocol with Triton's extensions, over the same node."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from ...protos import oip_pb2 as oip
from ...protos import oip_pb2_grpc as oip_grpc
from ..domain.errors import Code, InferdError
from ..domain.model import ModelState
from . import oip as door
from . import oip_models as models
from .guard import client_left, guarded, refuse_unread, unexpected
from .who import tenant

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    import grpc

    from ..node.node import Node

    Context = grpc.aio.ServicerContext[Any, Any]

SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
MAX_AT_ONCE = 256  # requests of one stream; the next is read when one of them is answered


class GRPCInferenceService(oip_grpc.GRPCInferenceServiceServicer):
    def __init__(self, node: Node, version: str) -> None:
        self.node = node
        self.version = version

    @guarded
    async def ServerLive(self, request: oip.ServerLiveRequest, context: Context) -> oip.ServerLiveResponse:
        return oip.ServerLiveResponse(live=True)

    @guarded
    async def ServerReady(self, request: oip.ServerReadyRequest, context: Context) -> oip.ServerReadyResponse:
        return oip.ServerReadyResponse(ready=not (self.node.closing or self.node.draining))

    @guarded
    async def ModelReady(self, request: oip.ModelReadyRequest, context: Context) -> oip.ModelReadyResponse:
        try:
            models.check_version(request.version)
            return oip.ModelReadyResponse(ready=self.node.fleet.get(request.name).state is ModelState.READY)
        except InferdError:  # one that nobody knows, or that is damaged, is not ready: clients ask until it is
            return oip.ModelReadyResponse(ready=False)

    @guarded
    async def ServerMetadata(self, request: oip.ServerMetadataRequest, context: Context) -> oip.ServerMetadataResponse:
        return oip.ServerMetadataResponse(name="inferd", version=self.version, extensions=models.EXTENSIONS)

    @guarded
    async def ModelMetadata(self, request: oip.ModelMetadataRequest, context: Context) -> oip.ModelMetadataResponse:
        models.check_version(request.version)
        return models.metadata(self.node.fleet.get(request.name).model)

    @guarded
    async def ModelConfig(self, request: oip.ModelConfigRequest, context: Context) -> oip.ModelConfigResponse:
        models.check_version(request.version)
        return oip.ModelConfigResponse(config=models.config(self.node.fleet.get(request.name).model))

    @guarded
    async def ModelStatistics(
        self, request: oip.ModelStatisticsRequest, context: Context
    ) -> oip.ModelStatisticsResponse:
        models.check_version(request.version)
        fleet, known = self.node.fleet, self.node.jobs.statistics
        if request.name:
            asked = [fleet.get(request.name)]
        else:
            asked = [it for it in fleet.deployments.values() if it.state is ModelState.READY]
        return models.statistics([(it.model, known.of(it.name)) for it in asked])

    @guarded
    async def ModelInfer(self, request: oip.ModelInferRequest, context: Context) -> oip.ModelInferResponse:
        return await door.infer(self.node, request, tenant(context))

    @guarded
    async def ModelStreamInfer(self, request: AsyncIterator[oip.ModelInferRequest | None], context: Context) -> None:
        await _Answers(self.node, tenant(context), context).serve(request)

    @guarded
    async def RepositoryIndex(
        self, request: oip.RepositoryIndexRequest, context: Context
    ) -> oip.RepositoryIndexResponse:
        entries = await asyncio.to_thread(self.node.catalog.scan)
        known = {name: it.model for name, it in self.node.fleet.deployments.items()}
        return models.index([entry for _, entry in sorted(entries.items())], known, ready=request.ready)

    @guarded
    async def RepositoryModelLoad(
        self, request: oip.RepositoryModelLoadRequest, context: Context
    ) -> oip.RepositoryModelLoadResponse:
        if request.parameters:
            name = next(iter(request.parameters))[:64]
            message = f"parameters.{name}: models are configured by the daemon's own configuration"
            raise InferdError(Code.UNSUPPORTED, message, field=f"parameters.{name}")
        async with contextlib.aclosing(self.node.wishes.load(request.model_name)) as loading:
            async for _ in loading:
                pass
        return oip.RepositoryModelLoadResponse()

    @guarded
    async def RepositoryModelUnload(
        self, request: oip.RepositoryModelUnloadRequest, context: Context
    ) -> oip.RepositoryModelUnloadResponse:
        await self.node.wishes.unload(request.model_name, force=False)
        return oip.RepositoryModelUnloadResponse()


class _Answers:
    """One stream: requests are served side by side, and their failures told in it, so that it goes on."""

    def __init__(self, node: Node, who: str, context: Context) -> None:
        self._node, self._who, self._context = node, who, context
        self._writing = asyncio.Lock()
        self._room = asyncio.Semaphore(MAX_AT_ONCE)
        self._limit_s = max(1.0, node.config.server.slow_consumer_s)

    async def serve(self, requests: AsyncIterator[oip.ModelInferRequest | None]) -> None:
        """Raises InferdError when the client takes nothing any more: whatever else is written would never arrive."""
        try:
            async with asyncio.TaskGroup() as tasks:
                async for request in requests:
                    await self._room.acquire()
                    tasks.create_task(self._serve(request))
        except ExceptionGroup as group:
            if group.subgroup(TimeoutError) is None:
                raise
            message = f"the reader of this stream took nothing for {self._limit_s:g} s"
            raise InferdError(Code.SLOW_CONSUMER, message) from None

    async def _serve(self, request: oip.ModelInferRequest | None) -> None:
        try:
            async with contextlib.aclosing(self._answer(request)) as answers:
                async for answer in answers:
                    await self._write(answer)
        except Exception as error:
            if not client_left(error) and not self._context.cancelled():
                raise
        finally:
            self._room.release()

    async def _answer(
        self, request: oip.ModelInferRequest | None
    ) -> AsyncGenerator[oip.ModelStreamInferResponse, None]:
        """What is to be written; a failure is an answer, too."""
        try:
            refuse_unread(request)
            assert isinstance(request, oip.ModelInferRequest)
            async with contextlib.aclosing(door.stream_infer(self._node, request, self._who)) as answers:
                async for answer in answers:
                    yield oip.ModelStreamInferResponse(infer_response=answer)
        except InferdError as error:
            yield _failed(request, error)
        except Exception:
            yield _failed(request, unexpected("ModelStreamInfer"))

    async def _write(self, answer: oip.ModelStreamInferResponse) -> None:
        async with self._writing, asyncio.timeout(self._limit_s):  # a call carries one message at a time
            await self._context.write(answer)


def _failed(request: object, error: InferdError) -> oip.ModelStreamInferResponse:
    named = oip.ModelInferResponse()
    if isinstance(request, oip.ModelInferRequest):
        named = oip.ModelInferResponse(model_name=request.model_name, id=request.id)
    return oip.ModelStreamInferResponse(error_message=error.message, infer_response=named)


def register(server: grpc.aio.Server, node: Node, version: str) -> None:
    oip_grpc.add_GRPCInferenceServiceServicer_to_server(GRPCInferenceService(node, version), server)
