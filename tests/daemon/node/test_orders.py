"""What a worker is told, from what a job is and how far it has come."""

from __future__ import annotations

from typing import Any

import msgspec

from inferd.backends.blob import Blob
from inferd.backends.facts import ModelFacts
from inferd.backends.messages import Embed, Infer, SamplingParams, Submit, Tensor
from inferd.daemon.domain.inputs import Inputs
from inferd.daemon.domain.request import Job, Priority, Request
from inferd.daemon.domain.tensors import Tensors
from inferd.daemon.node.orders import order

FACTS = ModelFacts(
    backend="onnx",
    path="m",
    file_bytes=1,
    architecture="bert",
    quantization="F32",
    n_params=1,
    n_layers=1,
    n_embd=1,
    n_heads=1,
    n_kv_heads=1,
    k_head_dim=1,
    v_head_dim=1,
    n_ctx_train=256,
    n_vocab=512,
)


def job(priority: Priority = Priority.NORMAL, **fields: Any) -> Job:
    params = SamplingParams(max_tokens=0, seed=3)
    made = Job(Request("r", "m", params, priority, "t", **fields), 0.0, 0)
    made.attempt, made.cache_salt = 2, "salt"
    return made


def test_a_text_goes_on_where_it_was() -> None:
    one = job(Priority.INTERACTIVE, tokens=[1, 2])
    one.prompt, one.generated, one.sent_bytes, one.max_tokens, one.grammar = [1, 2], [7], 4, 9, "g"
    params = msgspec.structs.replace(one.request.params, max_tokens=9, grammar="g")
    assert order(one, FACTS, 50.0, 600.0) == Submit("r", 2, [1, 2, 7], 2, params, 2, 4, 50.0, "salt")
    assert order(one, FACTS, None, 600.0) == Submit("r", 2, [1, 2, 7], 2, params, 2, 4, 0.0, "salt")


def test_what_a_session_has_computed_stays_warm() -> None:
    for session, keep_s in (("", 0.0), ("s", 600.0)):
        one = job(tokens=[1], session_id=session)
        one.prompt = [1]
        told = order(one, FACTS, None, 600.0)
        assert isinstance(told, Submit)
        assert told.keep_s == keep_s


def test_a_text_is_written_with_its_adapter() -> None:
    one = job(tokens=[1], lora="a")
    one.prompt = [1]
    told = order(one, FACTS, None, 600.0)
    assert isinstance(told, Submit)
    assert told.lora == "a"


def test_of_inputs_only_those_are_left_whose_vectors_have_not_come() -> None:
    one = job(Priority.BATCH, inputs=Inputs(["a", "b", "c"], dimensions=4))
    one.prompt, one.lengths = [1, 2, 3, 4, 5, 6], [2, 1, 3]
    assert order(one, FACTS, None, 600.0) == Embed("r", 2, [[1, 2], [3], [4, 5, 6]], True, 4, 0, 0)
    one.n_embedded = 2
    assert order(one, FACTS, None, 600.0) == Embed("r", 2, [[4, 5, 6]], True, 4, 0, 3)


def test_vectors_are_as_they_were_asked_for() -> None:
    one = job(inputs=Inputs([[1]], normalize=False))
    one.prompt, one.lengths = [1], [1]
    assert order(one, FACTS, None, 600.0) == Embed("r", 2, [[1]], False, 0, 1, 0)


def test_vectors_have_the_length_that_the_model_says() -> None:
    one = job(inputs=Inputs([[1]]))
    one.prompt, one.lengths = [1], [1]
    for normalize in (True, False):
        told = order(one, msgspec.structs.replace(FACTS, normalize=normalize), None, 600.0)
        assert isinstance(told, Embed)
        assert told.normalize is normalize


def test_of_pairs_the_worker_is_told_where_the_second_begins() -> None:
    one = job(inputs=Inputs(["a", "b"], query="q"))
    one.prompt, one.lengths, one.seconds, one.n_embedded = [1, 2, 3, 4], [2, 2], [1, 2], 1
    told = order(one, FACTS, None, 600.0)
    assert isinstance(told, Embed)
    assert (told.inputs, told.seconds) == ([[3, 4]], [2])


def test_tensors_go_with_their_class_and_deadline() -> None:
    x = Tensor("x", "FP32", [1], 4)
    one = job(Priority.INTERACTIVE, tensors=Tensors([x], Blob.of([b"abcd"]), ("y",)), deadline_ms=1500)
    one.prompt, one.arrived_s = range(1), 10.0
    assert order(one, FACTS, None, 600.0) == Infer("r", 2, [x], ["y"], b"abcd", 2, 11.5, "")
    dynamic = msgspec.structs.replace(FACTS, dynamic_quantization=True)
    told = order(one, dynamic, None, 600.0)
    assert isinstance(told, Infer)
    assert told.salt == "t"
