"""The Open Inference Protocol as its own clients speak it: Triton's, unmodified, against a real daemon."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from inferd.tests.e2e.daemons import until
from inferd.tests.models.random_gguf import SHAPES, write_random_gguf
from inferd.tests.models.random_onnx import Size, affine, classifier, echo, encoder, quantized

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.tests.e2e.daemons import Daemon, Launcher

CONFIG = "[models.defaults]\nthreads = 1\n[models.model.tiny]\ncontext_tokens = 512\n"
SIZE = Size()


@pytest.fixture(scope="module")
def daemon(launcher: Launcher) -> Daemon:
    models = launcher.models
    affine(models / "affine.onnx")
    echo(models / "echo.onnx")
    quantized(encoder(models / "minilm", SIZE), models / "minilm" / "onnx" / "model_int8.onnx")
    classifier(models / "moods", ["calm", "glad", "sad"], SIZE)
    classifier(models / "names", ["O", "NAME"], SIZE, per_token=True)
    write_random_gguf(models / "tiny.gguf", SHAPES["tiny"])
    return launcher.start(CONFIG, name="oip")


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Any]:
    sizes = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]  # its own defaults
    arguments = [*sizes, ("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    with triton.InferenceServerClient(daemon.address, channel_args=arguments) as client:
        yield client


def tensor(name: str, values: Any) -> Any:
    datatype = {"float32": "FP32", "int64": "INT64", "object": "BYTES"}[str(values.dtype)]
    given = triton.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values)
    return given


def test_the_server_and_its_models_tell_of_themselves(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata().name == "inferd"
    told = client.get_model_metadata("affine", as_json=True)
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}]
    config = client.get_model_config("affine").config
    assert (config.max_batch_size, list(config.input[0].dims)) == (32, [4])


def test_tensors_go_in_and_come_out(client: Any) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    answer = client.infer("affine", [tensor("x", x)], request_id="mine")
    np.testing.assert_array_equal(answer.as_numpy("y"), 2 * x + 1)
    np.testing.assert_array_equal(answer.as_numpy("total"), x.sum(axis=1))
    assert answer.get_response().id == "mine"


def test_large_tensors_cross_whole(client: Any) -> None:
    x = np.random.default_rng(0).standard_normal(4 << 20).astype(np.float32)
    np.testing.assert_array_equal(client.infer("echo", [tensor("x", x)]).as_numpy("y"), x)


def test_models_load_and_unload(client: Any) -> None:
    client.load_model("affine")
    assert client.is_model_ready("affine")
    states = {model.name: model.state for model in client.get_model_repository_index().models}
    assert states["affine"] == "READY"
    assert "minilm:int8" in states
    client.unload_model("affine")
    assert not client.is_model_ready("affine")


def test_texts_are_embedded_and_classified(client: Any, daemon: Daemon) -> None:
    texts = np.array(["the quiet river", "a letter in the garden"], object)
    vectors = client.infer("minilm", [tensor("text_input", texts)]).as_numpy("embedding")
    np.testing.assert_allclose(vectors, daemon.client.embed("minilm", list(texts)), atol=1e-5)
    wanted = triton.InferRequestedOutput("logits", class_count=2)
    best = client.infer("moods", [tensor("text_input", texts)], outputs=[wanted]).as_numpy("logits")
    assert best.shape == (2, 2)
    assert best[0][0].decode().split(":")[2] in ("calm", "glad", "sad")


def test_tokens_get_labels_and_places(client: Any) -> None:
    text = "the river garden"
    wanted = [triton.InferRequestedOutput("logits", class_count=1), triton.InferRequestedOutput("offsets")]
    given = [tensor("text_input", np.array([text], object))]
    answer = client.infer("names", given, outputs=wanted)
    offsets = answer.as_numpy("offsets")
    assert [text[start:end] for start, end in offsets] == ["", "the", "river", "garden", ""]
    labels = [best[0].decode().split(":")[2] for best in answer.as_numpy("logits")]
    assert len(labels) == 5
    raw = client.infer("names", given).as_numpy("logits")
    assert [["O", "NAME"][i] for i in raw.argmax(axis=1)] == labels
    with pytest.raises(triton.InferenceServerException, match="one element"):
        client.infer("names", [tensor("text_input", np.array([text, text], object))])


def test_a_text_model_streams(client: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    prompt = tensor("text_input", np.array(["the quiet river"], object))
    client.async_stream_infer(
        "tiny", [prompt], enable_empty_final_response=True, parameters={"max_tokens": 8, "seed": 1}
    )
    text = ""
    while True:
        result, error = answers.get(timeout=60)
        assert error is None
        if result.get_response().parameters["triton_final_response"].bool_param:
            break
        text += result.as_numpy("text_output")[0].decode()
    client.stop_stream()
    whole = client.infer("tiny", [prompt], parameters={"max_tokens": 8, "seed": 1})
    assert whole.as_numpy("text_output")[0].decode() == text
    assert whole.get_response().parameters["completion_tokens"].int64_param == 8


def test_statistics_count(client: Any) -> None:
    x = np.ones((3, 4), np.float32)
    before = client.get_inference_statistics("affine").model_stats[0]
    for _ in range(4):
        client.infer("affine", [tensor("x", x)])
    after = client.get_inference_statistics("affine").model_stats[0]
    assert after.inference_count - before.inference_count == 12
    assert after.execution_count - before.execution_count == 4
    assert after.inference_stats.success.count - before.inference_stats.success.count == 4
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("z", np.ones((1, 4), np.float32)), "has no input 'z'"),
        (("x", np.ones((1, 4), np.int64)), "must be FP32"),
        (("x", np.ones((1, 5), np.float32)), "must have the shape [-1, 4]"),
    ],
)
def test_wrong_tensors_are_refused_by_name(client: Any, given: Any, said: str) -> None:
    with pytest.raises(triton.InferenceServerException, match=said.replace("[", r"\[")):
        client.infer("affine", [tensor(*given)])


def test_a_stream_serves_many_at_once_and_goes_on_after_errors(client: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    prompt = tensor("text_input", np.array(["the quiet river"], object))
    good, bad = tensor("x", np.ones((1, 4), np.float32)), tensor("x", np.ones((1, 5), np.float32))
    for i in range(8):
        client.async_stream_infer("tiny", [prompt], request_id=f"text{i}", parameters={"max_tokens": 4})
        client.async_stream_infer("affine", [bad])
        client.async_stream_infer("affine", [good], request_id=f"tensor{i}")
    ended: set[str] = set()
    n_errors = 0
    while len(ended) < 16 or n_errors < 8:
        result, error = answers.get(timeout=60)
        n_errors += error is not None
        if error is None and result.get_response().parameters["triton_final_response"].bool_param:
            ended.add(result.get_response().id)
    client.stop_stream()
    assert answers.empty()
    assert ended == {f"{kind}{i}" for kind in ("text", "tensor") for i in range(8)}


def test_who_cancels_or_waits_no_longer_leaves_nothing_behind(client: Any, daemon: Daemon) -> None:
    prompt = tensor("text_input", np.array(["the quiet river"], object))
    long = {"max_tokens": 400, "ignore_eos": True}
    answers: queue.Queue[Any] = queue.Queue()
    call = client.async_infer("tiny", [prompt], lambda result, error: answers.put(error), parameters=long)
    until(lambda: daemon.client.snapshot().requests)
    call.cancel()
    assert "Locally cancelled" in str(answers.get(timeout=60))
    with pytest.raises(triton.InferenceServerException, match="DEADLINE_EXCEEDED"):
        client.infer("tiny", [prompt], parameters=long, client_timeout=0.05)
    with pytest.raises(triton.InferenceServerException, match=r"not finished 50 ms after arrival|not within 0.05 s"):
        client.infer("tiny", [prompt], parameters=long, timeout=50_000)
    until(lambda: not daemon.client.snapshot().requests)


def test_a_model_that_nobody_knows_is_not_ready(client: Any) -> None:
    assert not client.is_model_ready("nobody")
