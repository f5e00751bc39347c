"""Vectors and scores from a real daemon over its socket: of the fake engine, and of real encoders."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from inferd import Client, InferdError
from inferd.protos import inferd_pb2 as pb
from inferd.tests.e2e.daemons import until
from inferd.tests.models.random_bert import WORDS, Encoder, write_random_bert
from inferd.tests.models.random_gguf import SHAPES, write_random_gguf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inferd.tests.e2e.daemons import Daemon, Launcher

FAKE = "[fake]\nenabled = true\nprefill_tokens_per_s = 2000\n[models.defaults]\nslots = 1\n"
REAL = '[models.defaults]\nslots = 2\nthreads = 1\n[models.model.tiny]\npooling = "mean"\ncontext_tokens = 512\n'


@pytest.fixture(scope="module")
def fake(launcher: Launcher, gguf: Any) -> Daemon:
    file = gguf.small("bert", n_vocab=512)
    (launcher.models / "fake-embedder.gguf").write_bytes(file.build())
    return launcher.start(FAKE, name="fake")


@pytest.fixture(scope="module")
def real(launcher: Launcher) -> Daemon:
    for pooling in ("mean", "cls", "rank"):
        write_random_bert(launcher.models / f"bert-{pooling}.gguf", Encoder(pooling))
    write_random_gguf(launcher.models / "tiny.gguf", SHAPES["tiny"], "f32")
    return launcher.start(REAL, name="real")


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def sentences(n: int, seed: int = 1) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randrange(1, 40))) for _ in range(n)]


def test_everybody_gets_his_own_vectors_at_once(fake: Daemon) -> None:
    expected = {text: fake.client.embed("fake-embedder", text)[0] for text in sentences(12)}

    def ask(seed: int) -> None:
        texts = random.Random(seed).choices(list(expected), k=5)
        priority = ("interactive", "normal", "batch")[seed % 3]
        assert Client(fake.address).embed("fake-embedder", texts, priority=priority) == [expected[t] for t in texts]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(24)))
    until(fake.idle)


def test_whoever_hangs_up_frees_the_slot(fake: Daemon) -> None:
    request = pb.EmbedRequest(model="fake-embedder", inputs=[pb.EmbedInput(text="x" * 2000)] * 100)
    call = fake.inference.Embed.future(request)
    until(lambda: "running" in fake.live().values())
    call.cancel()
    until(fake.idle)
    with pytest.raises(grpc.FutureCancelledError):
        call.result()


def test_a_request_is_cancelled_by_its_id(fake: Daemon) -> None:
    request = pb.EmbedRequest(model="fake-embedder", inputs=[pb.EmbedInput(text="x" * 2000)] * 100, request_id="e7")
    call = fake.inference.Embed.future(request)
    until(lambda: fake.live().get("e7") == "running")
    assert fake.client.cancel("e7")
    with pytest.raises(grpc.RpcError, match="was cancelled"):
        call.result(timeout=10)


def test_what_a_model_is_for_is_said_and_held(fake: Daemon) -> None:
    info = {model.name: model for model in fake.client.models()}
    assert (info["fake-embedder"].pooling, info["fake-embedder"].dimensions) == ("mean", 64)
    assert (info["small"].pooling, info["small"].dimensions) == ("", 0)
    for ask in (
        lambda: fake.client.generate("fake-embedder", "hi").text(),
        lambda: fake.client.rerank("fake-embedder", "q", ["d"]),
        lambda: fake.client.embed("small", "hi"),
    ):
        with pytest.raises(InferdError) as error:
            ask()
        assert (error.value.code, error.value.details["field"]) == ("unsupported", "model")


@pytest.mark.llama
@pytest.mark.parametrize("model", ["bert-mean", "bert-cls", "tiny"])
def test_vectors_of_a_real_model_do_not_depend_on_company(real: Daemon, model: str) -> None:
    texts = sentences(20)
    together = real.client.embed(model, texts)
    assert all(cosine(vector, vector) == pytest.approx(1.0, abs=1e-5) for vector in together)
    alone = [real.client.embed(model, text)[0] for text in texts]
    assert all(cosine(one, other) > 0.9999 for one, other in zip(together, alone, strict=True))
    assert cosine(together[0], together[1]) < 0.9999
    tokens = [real.client.tokenize(model, text) for text in texts]
    assert sum(map(len, tokens)) == together.usage.prompt_tokens
    again = real.client.embed(model, tokens)
    assert again == together
    short = real.client.embed(model, texts[0], dimensions=16)[0]
    assert cosine(short, short) == pytest.approx(1.0, abs=1e-5)
    assert cosine(short, alone[0][:16]) == pytest.approx(cosine(alone[0][:16], alone[0][:16]) ** 0.5, abs=1e-4)


@pytest.mark.llama
def test_documents_are_ranked(real: Daemon) -> None:
    documents = sentences(10)
    ranking = real.client.rerank("bert-rank", "the river", documents)
    scores = [result.relevance_score for result in ranking]
    assert scores == sorted(scores, reverse=True)
    assert sorted(result.index for result in ranking) == list(range(10))
    best = real.client.rerank("bert-rank", "the river", documents, top_n=3)
    assert [result.index for result in best] == [result.index for result in ranking[:3]]
    for result in ranking:
        (alone,) = real.client.rerank("bert-rank", "the river", [documents[result.index]])
        assert alone.relevance_score == pytest.approx(result.relevance_score, abs=0.01)


@pytest.mark.llama
def test_too_long_a_text_is_refused_by_its_place(real: Daemon) -> None:
    with pytest.raises(InferdError, match="takes at most 512") as error:
        real.client.embed("bert-mean", ["the river", "a " * 600])
    assert error.value.details["field"] == "inputs[1]"
    assert error.value.details["context_tokens"] == "512"
    assert len(real.client.embed("bert-mean", "a " * 510)) == 1
