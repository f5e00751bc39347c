"""A daemon that shows what a test gives it and notes what it is asked to do, on a real socket."""

from __future__ import annotations

import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc

from inferd.protos import inferd_pb2 as pb
from inferd.protos import inferd_pb2_grpc as stubs
from inferd.protos.address import target
from inferd.tests.tui import samples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Stage(stubs.MonitorServicer, stubs.ModelsServicer, stubs.InferenceServicer, stubs.AdminServicer):
    """`show` gives every monitor another picture; `asked` has (method, request) of what operators did."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder}/d.sock"
        self.picture = samples.snapshot()
        self.happened = samples.events()
        self.catalog = samples.catalog()
        self.records = samples.records()
        self.plan = samples.plan()
        self.role = "operator"
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.asked: list[tuple[str, Any]] = []
        self.intervals: list[int] = []
        self._changed = threading.Condition()
        self._n_changes = 0
        self._server: grpc.Server | None = None

    def start(self) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        stubs.add_MonitorServicer_to_server(self, self._server)
        stubs.add_ModelsServicer_to_server(self, self._server)
        stubs.add_InferenceServicer_to_server(self, self._server)
        stubs.add_AdminServicer_to_server(self, self._server)
        self._server.add_insecure_port(target(self.address))
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            ended = self._server.stop(None)
            self._note_change()  # streams that wait see that they are over
            ended.wait()
            self._server = None

    def show(self, picture: pb.Snapshot) -> None:
        self.picture = picture
        self._note_change()

    def happen(self, event: pb.Event) -> None:
        self.happened = [*self.happened, event]
        self._note_change()

    def did(self, method: str) -> list[Any]:
        """What was asked of one method."""
        return [request for name, request in self.asked if name == method]

    def _note_change(self) -> None:
        with self._changed:
            self._n_changes += 1
            self._changed.notify_all()

    def _changes(self, context: Any) -> Iterator[None]:
        """Now, and whenever something has changed, until the call ends."""
        context.add_callback(self._note_change)
        seen = -1
        while context.is_active():
            with self._changed:
                while self._n_changes == seen and context.is_active():
                    self._changed.wait(5)
                seen = self._n_changes
            if context.is_active():
                yield

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        self.intervals.append(request.interval_ms)
        for _ in self._changes(context):
            yield self.picture

    def WatchEvents(self, request: Any, context: Any) -> Iterator[Any]:
        last = request.after
        for _ in self._changes(context):
            for event in self.happened:
                if event.sequence > last:
                    last = event.sequence
                    yield event
            if request.HasField("follow") and not request.follow:
                return

    def GetSnapshot(self, request: Any, context: Any) -> Any:
        return self.picture

    def WhoAmI(self, request: Any, context: Any) -> Any:
        return pb.WhoAmIResponse(tenant="default", role=self.role)

    def Explain(self, request: Any, context: Any) -> Any:
        if not any(r.id == request.request_id for r in self.picture.requests):
            context.abort(grpc.StatusCode.NOT_FOUND, "nothing is remembered of it")
        return pb.ExplainResponse(request_id=request.request_id, records=self.records)

    def ListModels(self, request: Any, context: Any) -> Any:
        return pb.ListModelsResponse(models=self.catalog)

    def PlanLoad(self, request: Any, context: Any) -> Any:
        self._ask("PlanLoad", request, context)
        return self.plan

    def LoadModel(self, request: Any, context: Any) -> Iterator[Any]:
        self._ask("LoadModel", request, context)
        yield pb.LoadProgress(state="ready", progress=1.0, load_ms=1400, device="gpu0")

    def UnloadModel(self, request: Any, context: Any) -> Any:
        self._ask("UnloadModel", request, context)
        return pb.UnloadModelResponse(was_loaded=True)

    def Pin(self, request: Any, context: Any) -> Any:
        self._ask("Pin", request, context)
        return pb.PinResponse(was_pinned=False)

    def Generate(self, request: Any, context: Any) -> Any:
        raise NotImplementedError("monitors do not ask for answers")

    Embed = Rerank = Tokenize = Lease = Generate

    def Cancel(self, request: Any, context: Any) -> Any:
        self._ask("Cancel", request, context)
        return pb.CancelResponse(cancelled=any(r.id == request.request_id for r in self.picture.requests))

    def SetPriority(self, request: Any, context: Any) -> Any:
        self._ask("SetPriority", request, context)
        return pb.SetPriorityResponse(changed=True)

    def Drain(self, request: Any, context: Any) -> Any:
        self._ask("Drain", request, context)
        return pb.DrainResponse(was_draining=False)

    def _ask(self, method: str, request: Any, context: Any) -> None:
        self.asked.append((method, request))
        if self.refusal is not None:
            context.abort(*self.refusal)
