"""The services on a real gRPC server in this process, over a Node whose models run on the fake engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from inferd.backends.messages import FinishReason
from inferd.daemon.api import rpc
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.node.stream import Finished, Queued, Text
from inferd.protos import inferd_pb2 as pb
from inferd.tests.daemon.api.house import WAIT_S, House, refused

if TYPE_CHECKING:
    from inferd.daemon.node.stream import Stream, StreamEvent


async def test_an_answer_comes_in_order(house: House) -> None:
    events = await house.generate()
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds.index("started") < kinds.index("delta")
    assert kinds[-1] == "finished"
    assert sum(len(event.delta.tokens) for event in events) == 3
    assert len(house.node.jobs) == 0


async def test_a_call_that_is_refused_half_way_leaves_nothing(house: House) -> None:
    error = await refused(house.generate(sampling=pb.Sampling(n=8)))
    assert error.code is Code.QUEUE_FULL
    assert not [job for job in house.node.jobs if job.live]


async def test_tokenize_takes_text_and_chats(house: House) -> None:
    plain = await house.inference.Tokenize(pb.TokenizeRequest(model="small", prompt="ab"))
    assert list(plain.tokens) == [97, 98]
    chat = pb.Messages(messages=[pb.Message(role="user", content="ab")])
    answer = await house.inference.Tokenize(pb.TokenizeRequest(model="small", messages=chat))
    assert len(answer.tokens) > 2
    assert not house.node.fleet.residents["small"].model.pid  # only the vocabulary was opened
    for request, field in (
        (pb.TokenizeRequest(model="small"), "prompt"),
        (pb.TokenizeRequest(model="small", prompt=""), "prompt"),
        (pb.TokenizeRequest(model="small", messages=pb.Messages()), "messages"),
        (pb.TokenizeRequest(prompt="x"), "model"),
    ):
        error = await refused(house.inference.Tokenize(request))
        assert error.field == field


async def test_models_are_listed_with_what_is_wrong(house: House) -> None:
    rows = (await house.models.ListModels(pb.ListModelsRequest())).models
    shown = {row.name: row for row in rows if row.name != "demo"}
    assert sorted(shown) == ["broken", "small"]
    assert (shown["small"].state, shown["small"].error) == ("cold", "")
    assert shown["broken"].state == "failed"
    assert shown["broken"].error


async def test_load_shows_progress_and_unload_says_whether_it_was(house: House) -> None:
    steps = [step async for step in house.models.LoadModel(pb.LoadModelRequest(model="small"), timeout=WAIT_S)]
    assert (steps[-1].state, steps[-1].progress, steps[-1].device) == ("ready", 1.0, "fake")
    assert steps[-1].load_ms > 0
    request = pb.UnloadModelRequest(model="small")
    assert (await house.models.UnloadModel(request)).was_loaded
    assert not (await house.models.UnloadModel(request)).was_loaded
    error = await refused(house.models.UnloadModel(pb.UnloadModelRequest(model="none")))
    assert error.code is Code.NOT_FOUND


async def test_a_request_is_moved_by_its_id(house: House) -> None:
    call = house.inference.Generate(
        pb.GenerateRequest(model="small", prompt="fake:tokens=5000", request_id="r", priority=pb.BATCH), timeout=WAIT_S
    )
    await call.read()
    moved = await house.inference.SetPriority(pb.SetPriorityRequest(request_id="r", priority=pb.NORMAL))
    assert moved.changed
    (row,) = (await house.monitor.GetSnapshot(pb.GetSnapshotRequest())).requests
    assert row.priority == "normal"
    said = (await house.monitor.Explain(pb.ExplainRequest(request_id="r"))).records
    assert "moved from batch to normal by an operator" in [record.summary.partition(",")[0] for record in said]
    call.cancel()
    gone = pb.SetPriorityRequest(request_id="nobody", priority=pb.BATCH)
    assert not (await house.inference.SetPriority(gone)).changed


@pytest.mark.parametrize("priority", [pb.PRIORITY_UNSPECIFIED, 17])
async def test_a_class_must_be_named(house: House, priority: Any) -> None:
    error = await refused(house.inference.SetPriority(pb.SetPriorityRequest(request_id="r", priority=priority)))
    assert (error.code, error.field) == (Code.INVALID, "priority")
    assert "INTERACTIVE, NORMAL or BATCH" in error.message


async def test_a_model_is_pinned_unless_it_is_said_otherwise(house: House) -> None:
    for asked, was in ((None, False), (True, True), (False, True), (False, False)):
        answer = await house.models.Pin(pb.PinRequest(model="small", pinned=asked))
        assert answer.was_pinned is was
    error = await refused(house.models.Pin(pb.PinRequest(model="none")))
    assert (error.code, error.field) == (Code.NOT_FOUND, "model")


async def test_cancel_says_whether_there_was_something(house: House) -> None:
    call = house.inference.Generate(
        pb.GenerateRequest(model="small", prompt="fake:tokens=5000", request_id="r"), timeout=WAIT_S
    )
    await call.read()
    assert (await house.inference.Cancel(pb.CancelRequest(request_id="r"))).cancelled
    assert not (await house.inference.Cancel(pb.CancelRequest(request_id="r"))).cancelled
    error = await refused(house.inference.Cancel(pb.CancelRequest()))
    assert (error.code, error.field) == (Code.INVALID, "request_id")

    async def rest() -> None:
        while await call.read():
            pass

    assert (await refused(rest())).code is Code.CANCELLED


class Asker:
    """A context with metadata, that keeps what is written and notices two writes at a time."""

    def __init__(self, *metadata: tuple[str, str | bytes]) -> None:
        self.metadata = metadata
        self.written: list[pb.GenerateResponse] = []
        self.writing = False

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self.metadata

    async def write(self, message: pb.GenerateResponse) -> None:
        assert not self.writing, "a call carries one message at a time"
        self.writing = True
        await asyncio.sleep(0)
        self.writing = False
        self.written.append(message)


class Script:
    """A stream that gives what a test wrote, an error last if there is one."""

    def __init__(self, *steps: list[StreamEvent], error: InferdError | None = None) -> None:
        self.steps = list(steps)
        self.error = error
        self.left = False

    async def take(self) -> list[StreamEvent]:
        await asyncio.sleep(0)
        if self.steps:
            return self.steps.pop(0)
        if self.error is not None:
            raise self.error
        return []


class Silent(Script):
    """A stream on which nothing comes."""

    async def take(self) -> list[StreamEvent]:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.left = True
        return []


async def forward_all(*scripts: Script) -> list[pb.GenerateResponse]:
    asker = Asker()
    await asyncio.wait_for(rpc._forward_all(cast("list[Stream]", list(scripts)), cast("Any", asker)), WAIT_S)
    return asker.written


END = Finished(FinishReason.STOP, 1, 0, 2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


async def test_several_streams_share_a_call_one_message_at_a_time() -> None:
    written = await forward_all(
        *(Script([Text(0, "a", [1], None), Text(1, "b", [2], None)], [Text(2, "c", [3], None)], [END]) for _ in "xyz")
    )
    for choice in range(3):
        own = [event.delta for event in written if event.HasField("delta") and event.delta.choice == choice]
        assert [delta.index for delta in own] == [0, 1, 2]
    assert sorted(event.finished.choice for event in written if event.HasField("finished")) == [0, 1, 2]


async def test_the_first_failure_ends_them_all() -> None:
    silent = Silent()
    failing = Script([Queued("r", 0, "slot")], error=InferdError(Code.DEADLINE, "late"))
    with pytest.raises(InferdError) as caught:
        await forward_all(silent, failing, Script(error=InferdError(Code.DEADLINE, "late too")))
    assert caught.value.code is Code.DEADLINE
    assert silent.left
