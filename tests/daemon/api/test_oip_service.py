"""The Open Inference Protocol on a real gRPC server in this process, over a Node with the fake engine."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from inferd.daemon import listen, main
from inferd.daemon.api import oip as door
from inferd.daemon.api import oip_service
from inferd.daemon.domain.access import Door, Role
from inferd.daemon.domain.config import Config, Fake, ModelOptions, Models, Server
from inferd.daemon.domain.errors import Code, InferdError
from inferd.protos import oip_pb2 as oip
from inferd.protos import oip_pb2_grpc as stubs
from inferd.tests.models.random_onnx import affine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from inferd.daemon.node.node import Node

WAIT_S = 20.0


class House:
    """A Node behind its doors."""

    def __init__(self, node: Node, channel: grpc.aio.Channel) -> None:
        self.node = node
        self.channel = channel
        self.oip: Any = stubs.GRPCInferenceServiceStub(channel)


@pytest.fixture
def folder(gguf: Any) -> Iterator[Path]:
    # A socket's path has at most 107 bytes: pytest's own folders can be longer.
    with tempfile.TemporaryDirectory(prefix="inferd-") as name:
        (Path(name) / "small.gguf").write_bytes(gguf.small(n_vocab=512).build())
        affine(Path(name) / "affine.onnx")
        yield Path(name)


@pytest.fixture
async def house(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    config = Config(fake=Fake(enabled=True), models=Models(folders=(str(folder),), defaults=ModelOptions(slots=2)))
    monkeypatch.setenv("STATE_DIRECTORY", str(folder / "state"))
    node, telemetry = main.build(config)
    address = f"unix:{folder}/d.sock"
    doors = listen.Doors(config, node, telemetry, [Door("socket", address, Role.OPERATOR)])
    await doors.open()
    options = [("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield House(node, channel)
    await node.drain(0.0)
    await doors.close(None)
    telemetry.sensors.close()


def wire(rows: int = 1, name: str = "x", **fields: Any) -> oip.ModelInferRequest:
    inputs = [{"name": name, "datatype": "FP32", "shape": (rows, 4)}]
    return oip.ModelInferRequest(
        **{"model_name": "affine", "inputs": inputs, "raw_input_contents": [bytes(16 * rows)]} | fields
    )


def text(prompt: str, **fields: Any) -> oip.ModelInferRequest:
    one = {"name": "text_input", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [prompt.encode()]}}
    request = oip.ModelInferRequest(**{"model_name": "small", "inputs": [one]} | fields)
    request.parameters["seed"].int64_param = 1
    return request


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_the_server_tells_of_itself(house: House) -> None:
    assert (await house.oip.ServerLive(oip.ServerLiveRequest())).live
    assert (await house.oip.ServerReady(oip.ServerReadyRequest())).ready
    told = await house.oip.ServerMetadata(oip.ServerMetadataRequest())
    assert told.name == "inferd"
    assert "statistics" in told.extensions
    house.node.controls.drain(True)
    assert not (await house.oip.ServerReady(oip.ServerReadyRequest())).ready
    assert (await house.oip.ServerLive(oip.ServerLiveRequest())).live
    error = await refused(house.oip.ModelInfer(wire()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    house.node.controls.drain(False)
    assert (await house.oip.ServerReady(oip.ServerReadyRequest())).ready
    house.node.closing = True
    assert not (await house.oip.ServerReady(oip.ServerReadyRequest())).ready


async def test_a_model_is_loaded_by_its_first_request(house: House) -> None:
    asked = oip.ModelReadyRequest(name="affine")
    assert not (await house.oip.ModelReady(asked)).ready
    answer = await house.oip.ModelInfer(wire(3, id="mine"), timeout=WAIT_S)
    assert (answer.id, answer.model_version) == ("mine", "1")
    assert [list(output.shape) for output in answer.outputs] == [[3, 4], [3]]
    assert [len(data) for data in answer.raw_output_contents] == [48, 12]
    assert (await house.oip.ModelReady(asked)).ready


async def test_models_are_loaded_and_unloaded_by_name(house: House) -> None:
    await house.oip.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="affine"), timeout=WAIT_S)
    index = await house.oip.RepositoryIndex(oip.RepositoryIndexRequest(ready=True))
    assert [(row.name, row.state) for row in index.models] == [("affine", "READY")]
    statistics = await house.oip.ModelStatistics(oip.ModelStatisticsRequest())
    assert [row.name for row in statistics.model_stats] == ["affine"]
    await house.oip.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="affine"), timeout=WAIT_S)
    index = await house.oip.RepositoryIndex(oip.RepositoryIndexRequest())
    assert {row.name: row.state for row in index.models}["affine"] == "UNAVAILABLE"


async def test_a_configuration_is_not_taken_from_clients(house: House) -> None:
    request = oip.RepositoryModelLoadRequest(model_name="affine")
    request.parameters["config"].string_param = "{}"
    assert (await refused(house.oip.RepositoryModelLoad(request))).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_metadata_and_configuration(house: House) -> None:
    told = await house.oip.ModelMetadata(oip.ModelMetadataRequest(name="small"))
    assert [one.name for one in told.inputs] == ["text_input"]
    config = (await house.oip.ModelConfig(oip.ModelConfigRequest(name="affine"))).config
    assert config.max_batch_size == 32
    error = await refused(house.oip.ModelMetadata(oip.ModelMetadataRequest(name="nobody")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    error = await refused(house.oip.ModelConfig(oip.ModelConfigRequest(name="affine", version="7")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_a_text_as_a_whole_and_in_pieces(house: House) -> None:
    whole = await house.oip.ModelInfer(text("fake:tokens=5"), timeout=WAIT_S)
    assert whole.parameters["completion_tokens"].int64_param == 5
    assert whole.parameters["finish_reason"].string_param == "stop"
    stream = house.oip.ModelStreamInfer(timeout=WAIT_S)
    await stream.write(text("fake:tokens=5", id="s"))
    await stream.done_writing()
    answers = [answer.infer_response async for answer in stream]
    assert {answer.id for answer in answers} == {"s"}
    said = b"".join(answer.raw_output_contents[0][4:] for answer in answers if answer.raw_output_contents)
    assert said == whole.raw_output_contents[0][4:]
    finals = [answer.parameters["triton_final_response"].bool_param for answer in answers]
    assert finals == [False] * (len(answers) - 1) + [True]


async def test_a_stream_goes_on_after_a_failure(house: House) -> None:
    stream = house.oip.ModelStreamInfer(timeout=WAIT_S)
    for request in (wire(id="bad", name="z"), wire(id="good")):
        await stream.write(request)
    await stream.done_writing()
    told = {answer.infer_response.id: answer.error_message async for answer in stream}
    assert "has no input 'z'" in told["bad"]
    assert told["good"] == ""


async def test_messages_with_tensors_may_be_large_and_others_not(house: House) -> None:
    rows = 5 << 16
    answer = await house.oip.ModelInfer(wire(rows, outputs=[{"name": "total"}]), timeout=WAIT_S)
    assert list(answer.outputs[0].shape) == [rows]


async def test_what_is_no_message_is_refused(house: House) -> None:
    channel: Any = house.channel
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    assert (await refused(call(b"\xff\xff"))).code() is grpc.StatusCode.INVALID_ARGUMENT
    call = channel.unary_unary("/inferd.v1.Inference/Tokenize")
    error = await refused(call(bytes(5 << 20)))
    assert "at most 4,194,304 are allowed" in (error.details() or "")


async def test_many_empty_inputs_are_counted_before_they_are_made(house: House) -> None:
    channel: Any = house.channel
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    error = await refused(call(b"\x2a\x00" * (1 << 20)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "at most 4,096 are allowed" in (error.details() or "")


async def test_a_model_that_nobody_knows_is_not_ready(house: House) -> None:
    for asked in (oip.ModelReadyRequest(name="nobody"), oip.ModelReadyRequest(name="affine", version="7")):
        assert not (await house.oip.ModelReady(asked)).ready


async def test_a_stream_goes_on_after_a_failure_of_ours(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    real = door.stream_infer

    def broken(node: Node, request: oip.ModelInferRequest, who: str) -> Any:
        if request.id == "bad":
            raise ZeroDivisionError("/secret/path")
        return real(node, request, who)

    monkeypatch.setattr(door, "stream_infer", broken)
    stream = house.oip.ModelStreamInfer(timeout=WAIT_S)
    for request in (wire(id="bad"), wire(id="good")):
        await stream.write(request)
    await stream.done_writing()
    told = {answer.infer_response.id: answer.error_message async for answer in stream}
    assert "the daemon's log has it under" in told["bad"]
    assert "secret" not in told["bad"]
    assert told["good"] == ""


class Still:
    """A context whose client takes nothing."""

    async def write(self, _: Any) -> None:
        await asyncio.Event().wait()

    def cancelled(self) -> bool:
        return False


async def test_who_takes_no_answer_is_cut(house: House) -> None:
    house.node.config = Config(server=Server(slow_consumer_s=0.0))
    still: Any = Still()

    async def requests() -> AsyncIterator[oip.ModelInferRequest]:
        for _ in range(3):
            yield wire(model_name="nobody")

    with pytest.raises(InferdError) as caught:
        async with asyncio.timeout(WAIT_S):
            await oip_service._Answers(house.node, "t", still).serve(requests())
    assert caught.value.code is Code.SLOW_CONSUMER


async def test_methods_of_grpc_itself_get_messages_or_nothing(house: House) -> None:
    channel: Any = house.channel
    name = b"a" * (5 << 20)
    call = channel.unary_unary("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest.SerializeToString)
    error = await refused(call(health_pb2.HealthCheckRequest(service=name.decode())))
    assert error.code() is grpc.StatusCode.NOT_FOUND
