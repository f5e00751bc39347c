"""ONNX models under a real daemon: killed, drained, replaced and hostile ones; what is said of their memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton

from inferd import InferdError
from inferd.backends.onnx.session import Session
from inferd.backends.onnx.tokenizer import open_tokenizer
from inferd.tests.e2e.daemons import until
from inferd.tests.models.random_onnx import Builder, Size, affine, classifier, decoder, echo, encoder, info, quantized

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from inferd.tests.e2e.daemons import Daemon, Launcher

CONFIG = "[models.defaults]\nthreads = 1\n"
SIZE = Size()
REAL = Size(n_layers=4, n_embd=256, n_heads=8, n_ff=1024, n_vocab=10_000)
WAIT_S = 60.0
MIB = 1 << 20


@pytest.fixture(scope="module")
def daemon(launcher: Launcher) -> Daemon:
    models = launcher.models
    affine(models / "affine.onnx")
    echo(models / "echo.onnx")
    encoder(models / "minilm", SIZE)
    encoder(models / "real", REAL)
    quantized(models / "real" / "onnx" / "model.onnx", models / "real" / "onnx" / "model_int8.onnx")
    classifier(models / "ranker", ["LABEL_0"], SIZE)
    classifier(models / "moods", ["calm", "glad", "sad"], SIZE)
    decoder(models / "teller", SIZE)
    slow(models / "slow.onnx")
    return launcher.start(CONFIG, name="onnx")


def slow(path: Path) -> Path:
    """A call of some tenths of a second: a matrix is multiplied with itself until somebody has had enough."""
    b = Builder()
    x = "x"
    for _ in range(60):
        x = b.op("Tanh", b.op("MatMul", x, b.weight(1024, 1024)))
    b.op("Identity", x, out="y")
    shape = (1, 512, 1024)
    return b.save(path, [info("x", onnx.TensorProto.FLOAT, *shape)], [info("y", onnx.TensorProto.FLOAT, *shape)])


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Any]:
    with dial(daemon) as client:
        yield client


def dial(daemon: Daemon) -> Any:
    sizes = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    arguments = [*sizes, ("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    return triton.InferenceServerClient(daemon.address, channel_args=arguments)


def tensor(name: str, values: Any) -> Any:
    datatype = {"float32": "FP32", "int64": "INT64", "object": "BYTES"}[str(values.dtype)]
    given = triton.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values)
    return given


class Crowd:
    """Clients that ask and ask, each in a thread with a connection of its own, until `end`."""

    def __init__(self, daemon: Daemon, asks: list[Callable[[Any], None]]) -> None:
        self.n_answers = [0] * len(asks)
        self.errors: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(daemon, i, ask)) for i, ask in enumerate(asks)]
        for thread in self._threads:
            thread.start()

    def _run(self, daemon: Daemon, i: int, ask: Callable[[Any], None]) -> None:
        with dial(daemon) as client:
            while not self._over.is_set():
                try:
                    ask(client)
                except Exception as error:
                    self.errors.append(f"{i}: {error}")
                    return
                self.n_answers[i] += 1

    def answered(self, n: int = 1) -> Callable[[], bool]:
        """Everybody has had so many more answers, or an error ended somebody."""
        before = list(self.n_answers)
        return lambda: bool(self.errors) or all(m >= b + n for b, m in zip(before, self.n_answers, strict=True))

    def end(self) -> list[str]:
        self._over.set()
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
        return self.errors


def asks_affine(client: Any) -> None:
    x = np.random.default_rng().standard_normal((2, 4)).astype(np.float32)
    np.testing.assert_array_equal(client.infer("affine", [tensor("x", x)]).as_numpy("y"), 2 * x + 1)


def asks_echo(client: Any) -> None:
    x = np.random.default_rng().standard_normal(200_000).astype(np.float32)  # in a file
    np.testing.assert_array_equal(client.infer("echo", [tensor("x", x)]).as_numpy("y"), x)


def asks_minilm(client: Any) -> None:
    texts = tensor("text_input", np.array(["the quiet river"], object))
    assert client.infer("minilm", [texts]).as_numpy("embedding").shape == (1, SIZE.n_embd)


def ready(daemon: Daemon, name: str) -> bool:
    model = daemon.model(name)
    return model is not None and model.state == "ready"


def test_no_request_is_lost_when_workers_are_killed(daemon: Daemon) -> None:
    crowd = Crowd(daemon, [asks_affine, asks_echo, asks_minilm, asks_affine] * 5)
    until(crowd.answered())
    for _ in range(2):
        for name in ("affine", "echo", "minilm"):
            until(lambda: ready(daemon, name))  # noqa: B023 - it is called before the next turn
            os.kill(daemon.worker_pid(name), signal.SIGKILL)
        until(crowd.answered(3))
    assert crowd.end() == []
    until(daemon.idle)


def test_files_of_requests_do_not_stay_open(daemon: Daemon, client: Any) -> None:
    def n_open() -> tuple[int, int]:
        pids = (daemon.process.pid, daemon.worker_pid("echo"))
        ours, theirs = (len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
        return ours, theirs

    asks_echo(client)
    before = n_open()
    for _ in range(20):
        asks_echo(client)
    for _ in range(5):
        with pytest.raises(triton.InferenceServerException):
            client.infer("echo", [tensor("z", np.zeros(200_000, np.float32))])
    until(lambda: all(now <= then for now, then in zip(n_open(), before, strict=True)))


def test_large_tensors_come_at_once_and_leave_nothing(daemon: Daemon) -> None:
    x = np.ones(8 << 20, np.float32)

    def ask(client: Any) -> None:
        np.testing.assert_array_equal(client.infer("echo", [tensor("x", x)]).as_numpy("y"), x)

    crowd = Crowd(daemon, [ask] * 4)
    until(crowd.answered(2))
    assert crowd.end() == []
    until(lambda: daemon.rss_bytes() < 150 * MIB)


def test_an_embedding_is_what_the_bare_session_makes(daemon: Daemon, launcher: Launcher) -> None:
    path = str(launcher.models / "real" / "onnx" / "model.onnx")
    session = Session(path, [("CPUExecutionProvider", {})], 1)
    text = "a letter in the quiet garden"
    ids = np.array([open_tokenizer(path).encode(text).ids])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    mean = session.run(feeds, ["last_hidden_state"])[0][0].mean(axis=0)
    got = np.array(daemon.client.embed("real", [text])[0])
    np.testing.assert_allclose(got, mean / np.linalg.norm(mean), atol=1e-6)
    crowd = daemon.client.embed("real", ["the river", text, "a child " * 100, "house"])
    np.testing.assert_allclose(crowd[1], got, atol=1e-5)


def test_documents_are_ranked_as_the_bare_session_scores_them(daemon: Daemon, launcher: Launcher) -> None:
    path = str(launcher.models / "ranker" / "model.onnx")
    session, tokenizer = Session(path, [("CPUExecutionProvider", {})], 1), open_tokenizer(path)
    query, documents = "the river", ["a house", "the quiet river", "bright morning", "a small green window"]
    scores = []
    for document in documents:
        pair = tokenizer.encode(query, document)
        given = {"input_ids": pair.ids, "attention_mask": pair.attention_mask, "token_type_ids": pair.type_ids}
        scores.append(session.run({name: np.array([ids]) for name, ids in given.items()}, ["logits"])[0][0, 0])
    ranked = daemon.client.rerank("ranker", query, documents)
    assert [one.index for one in ranked] == np.argsort(scores)[::-1].tolist()
    np.testing.assert_allclose([one.relevance_score for one in ranked], np.sort(scores)[::-1], atol=1e-5)


def test_a_decoder_streams_and_a_seed_repeats_it(daemon: Daemon) -> None:
    def told(**options: Any) -> tuple[str, list[int]]:
        deltas = list(daemon.client.generate("teller", "the quiet river", max_tokens=40, ignore_eos=True, **options))
        return "".join(delta.text for delta in deltas), [token for delta in deltas for token in delta.tokens]

    sampled = {"temperature": 1.0, "top_k": 50, "top_p": 0.95}
    text, tokens = told(seed=7, **sampled)
    assert len(tokens) == 40
    assert told(seed=7, **sampled) == (text, tokens)
    assert told(seed=8, **sampled)[1] != tokens
    assert told(temperature=0.0) == told(temperature=0.0)
    beside = [threading.Thread(target=told, kwargs={"seed": i, **sampled}) for i in range(3)]
    for thread in beside:
        thread.start()
    assert told(seed=7, **sampled) == (text, tokens)
    for thread in beside:
        thread.join(WAIT_S)


def test_an_answer_goes_on_in_the_next_worker(daemon: Daemon) -> None:
    options: dict[str, Any] = {"max_tokens": 400, "ignore_eos": True, "temperature": 1.0, "seed": 3}
    whole = daemon.client.generate("teller", "the river", **options).text()
    answer = iter(daemon.client.generate("teller", "the river", **options))
    text = next(answer).text
    os.kill(daemon.worker_pid("teller"), signal.SIGKILL)
    assert text + "".join(delta.text for delta in answer) == whole


def test_logprobs_name_their_tokens(daemon: Daemon) -> None:
    deltas = list(daemon.client.generate("teller", "the river", max_tokens=3, ignore_eos=True, logprobs=2))
    said = [logprob for delta in deltas for logprob in delta.logprobs]
    assert len(said) == 3
    assert all(one.text and all(other.text for other in one.top) for one in said)


def command(daemon: Daemon, *arguments: str) -> str:
    line = [sys.executable, "-m", "inferd.daemon.cli.app", *arguments, "--address", daemon.address]
    return subprocess.run(line, capture_output=True, text=True, check=True, timeout=WAIT_S).stdout


def test_they_are_shown_like_every_other(daemon: Daemon) -> None:
    daemon.client.load("real:int8").wait()
    models = {model["name"]: model for model in json.loads(command(daemon, "ps", "--json"))["models"]}
    row = models["real:int8"]
    assert (row["state"], row["backend"], row["devices"]) == ("ready", "onnx", ["cpu"])
    listed = {model["name"]: model for model in json.loads(command(daemon, "models", "--json"))["models"]}
    tasks = {"real": "embed", "ranker": "rank", "moods": "classify", "teller": "generate", "affine": "infer"}
    assert {name: listed[name]["task"] for name in tasks} == tasks
    assert listed["real:int8"]["quantization"] == "INT8"
    assert "takes tensors" in command(daemon, "models")
    plan = command(daemon, "plan", "real:int8")
    assert "never those of two tenants" in plan
    assert "never those of two tenants" not in command(daemon, "plan", "real")
    model = daemon.model("real:int8")
    assert model is not None
    assert model.bytes == row["bytes"]


@pytest.mark.parametrize("name", ["real", "real:int8"])
def test_what_is_booked_is_what_a_busy_worker_takes(daemon: Daemon, name: str) -> None:
    daemon.client.load(name).wait()
    booked_bytes = daemon.client.plan(name).pools[0].needed_bytes
    resting = resident_bytes(daemon.worker_pid(name))
    assert resting < 0.75 * booked_bytes
    for text in ("the quiet river " * 165, "the quiet river " * 55):
        daemon.client.embed(name, [text] * 32)
    # How much it takes in the end depends on who shared a call with whom; what is booked is for the largest ones.
    assert 0.7 < booked_bytes / resident_bytes(daemon.worker_pid(name)) < 2.5


def resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def test_what_does_not_fit_says_so(launcher: Launcher, daemon: Daemon) -> None:
    config = "[models.defaults]\nthreads = 2\ninstances = 2\n[memory]\nhost_budget_bytes = 400_000_000\n"
    small = launcher.start(config, name="small")
    shown = command(small, "plan", "real")
    assert "does not fit" in shown
    assert "instances = 1" in shown
    with pytest.raises(InferdError) as refused:
        small.client.embed("real", ["x"])
    assert refused.value.code == "no_room"
    assert small.client.rerank("ranker", "x", ["the river"])[0].index == 0
    assert small.terminate() == 0


def hostile(models: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no models, by name: the file and a part of what is said of it."""
    whole = affine(models / "whole.onnx").read_bytes()
    found: dict[str, tuple[Path, str]] = {}

    def write(name: str, raw: bytes, said: str) -> None:
        path = models / name / "model.onnx"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw)
        found[name] = (path, said)

    write("empty", b"", "no ONNX model")
    write("text", b"hello", "no ONNX model")
    write("cut", whole[: len(whole) // 2], "no ONNX model")
    outside = onnx.load_model_from_string(whole)
    for weight in outside.graph.initializer:
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="../affine.onnx")
    write("outside", outside.SerializeToString(), "outside of its folder")
    strange = onnx.load_model_from_string(whole)
    strange.graph.node[0].domain = "my.ops"
    write("strange", strange.SerializeToString(), "custom library")
    newer = onnx.load_model_from_string(whole)
    newer.opset_import[0].version = 99
    write("newer", newer.SerializeToString(), "operator set is newer")
    loose = onnx.load_model_from_string(whole)
    loose.graph.node[0].input[0] = "nobody"
    write("loose", loose.SerializeToString(), "its graph is not valid")
    return found


def test_hostile_files_are_refused_and_the_daemon_goes_on(daemon: Daemon, client: Any, launcher: Launcher) -> None:
    for name, (path, said) in hostile(launcher.models).items():
        with pytest.raises(triton.InferenceServerException) as refused:
            client.infer(name, [tensor("x", np.zeros((1, 4), np.float32))])
        assert said in refused.value.message(), name
        assert str(path.parent.parent) not in refused.value.message()
        assert refused.value.status() in ("StatusCode.FAILED_PRECONDITION", "StatusCode.UNIMPLEMENTED"), name
        asks_affine(client)
    with pytest.raises(triton.InferenceServerException, match="its inputs are 'input_ids'"):
        client.infer("ranker", [tensor("text_input", np.array(["x"], object))])
    listed = {model.name: model for model in daemon.client.models()}
    assert all(listed[name].error for name in ("empty", "text", "cut", "outside", "strange"))


def test_a_model_whose_files_change_is_served_on_and_then_anew(daemon: Daemon, launcher: Launcher) -> None:
    folder = launcher.models / "changes"
    encoder(folder, SIZE, seed=1)
    first = daemon.client.embed("changes", ["the river"])[0]
    encoder(folder, SIZE, seed=2)
    assert daemon.client.embed("changes", ["the river"])[0] == first  # of the session that is loaded
    daemon.client.unload("changes")
    assert daemon.client.embed("changes", ["the river"])[0] != first
    (folder / "tokenizer.json").unlink()
    daemon.client.unload("changes")
    with pytest.raises(InferdError) as refused:
        daemon.client.embed("changes", ["the river"])
    assert refused.value.code == "unsupported"
    assert daemon.client.embed("minilm", ["the river"])


def test_pooling_of_an_operator_does_not_break_a_graph(launcher: Launcher, daemon: Daemon) -> None:
    other = launcher.start(
        f'{CONFIG}[models.model.minilm]\npooling = "none"\n[models.model.teller]\npooling = "mean"\n', name="pooling"
    )
    assert other.client.embed("minilm", ["the river"]) == daemon.client.embed("minilm", ["the river"])
    assert other.client.generate("teller", "the river", max_tokens=3, ignore_eos=True).text()
    assert other.terminate() == 0


def test_tensors_in_flight_are_answered_before_the_daemon_ends(launcher: Launcher, daemon: Daemon) -> None:
    drained = launcher.start(CONFIG, name="drain")
    x = np.random.default_rng(0).standard_normal((1, 512, 1024)).astype(np.float32)
    drained.client.load("slow").wait()
    answers: list[Any] = []

    def ask() -> None:
        with dial(drained) as client:
            answers.append(client.infer("slow", [tensor("x", x)]).as_numpy("y"))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(drained.live()) == 3)
    start_s = time.monotonic()
    assert drained.terminate() == 0
    assert time.monotonic() - start_s < WAIT_S / 2
    for thread in threads:
        thread.join(WAIT_S)
    assert len(answers) == 3
    np.testing.assert_array_equal(answers[0], answers[2])
