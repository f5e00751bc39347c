from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest

from inferd.backends.blob import Blob
from inferd.backends.facts import ModelFacts, TensorFacts
from inferd.backends.messages import Tensor
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.tensors import (
    MAX_BYTES,
    MAX_TENSORS,
    Tensors,
    check_n_bytes,
    check_n_tensors,
    check_ports,
    check_shape,
    check_total,
)

FACTS = ModelFacts(
    backend="onnx",
    path="m.onnx",
    file_bytes=1,
    architecture="onnx",
    quantization="",
    n_params=0,
    n_layers=0,
    n_embd=0,
    n_heads=0,
    n_kv_heads=0,
    k_head_dim=0,
    v_head_dim=0,
    n_ctx_train=0,
    n_vocab=0,
    task="infer",
    inputs=(TensorFacts("x", "FP32", (-1, 4)), TensorFacts("free", "INT64", None)),
    outputs=(TensorFacts("y", "FP32", (-1, 4)),),
)


def tensors(*inputs: tuple[str, str, list[int]], outputs: tuple[str, ...] = ()) -> Tensors:
    return Tensors([Tensor(*one, 0) for one in inputs], Blob(0, data=b""), outputs)


def refusal(check: Any, *arguments: Any) -> InferdError:
    with pytest.raises(InferdError) as caught:
        check(*arguments)
    assert caught.value.code is Code.INVALID
    return caught.value


def test_a_request_counts_for_its_tokens_or_its_rows() -> None:
    assert tensors(("x", "FP32", [3, 4])).n_tokens == 3
    assert tensors(("input_ids", "INT64", [2, 9]), ("attention_mask", "INT64", [2, 9])).n_tokens == 18
    assert tensors(("x", "FP32", [])).n_tokens == 1
    assert tensors(("x", "FP32", [0, 4])).n_tokens == 1


def test_something_long_is_no_queue_of_rows() -> None:
    sound = Tensors([Tensor("x", "FP32", [4 << 20], 16 << 20)], Blob(0, data=b""))
    assert sound.n_tokens == 16 << 10
    assert tensors(("x", "FP32", [3, 4])).n_rows == 3


def test_there_may_be_many_but_not_endlessly_many() -> None:
    check_n_tensors("inputs", MAX_TENSORS)
    assert refusal(check_n_tensors, "inputs", MAX_TENSORS + 1).field == "inputs"


@pytest.mark.parametrize(
    ("name", "datatype", "shape", "field"),
    [
        ("", "FP32", [1], "inputs[0].name"),
        ("x" * 257, "FP32", [1], "inputs[0].name"),
        ("x", "FLOAT", [1], "inputs[0].datatype"),
        ("x", "", [1], "inputs[0].datatype"),
        ("x", "FP32", [-1], "inputs[0].shape"),
        ("x", "FP32", [1] * 17, "inputs[0].shape"),
        ("x", "FP32", [1 << 31], "inputs[0].shape"),
        ("x", "FP32", [1 << 40, 1 << 40], "inputs[0].shape"),
        ("x", "BYTES", [MAX_BYTES + 1], "inputs[0].shape"),
    ],
)
def test_what_no_model_takes_is_refused_by_field(name: str, datatype: str, shape: list[int], field: str) -> None:
    assert refusal(check_shape, "inputs[0]", name, datatype, shape).field == field


def test_elements_are_counted() -> None:
    assert check_shape("f", "x", "FP32", [2, 3]) == 6
    assert check_shape("f", "x", "BOOL", []) == 1


@pytest.mark.parametrize(
    ("datatype", "n_bytes"), [("BOOL", 6), ("FP16", 12), ("INT32", 24), ("FP64", 48), ("UINT64", 48)]
)
def test_bytes_must_be_as_many_as_the_shape_says(datatype: str, n_bytes: int) -> None:
    tensor = Tensor("x", datatype, [2, 3], 0)
    check_n_bytes("f", tensor, bytes(n_bytes))
    for wrong in (0, n_bytes - 1, n_bytes + 1):
        assert "of shape [2, 3]" in refusal(check_n_bytes, "f", tensor, bytes(wrong)).message


def strings(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def test_strings_are_counted_and_read() -> None:
    tensor = Tensor("s", "BYTES", [2], 0)
    check_n_bytes("f", tensor, strings(b"", "grün".encode()))
    wrong = [
        strings(b"a"),
        strings(b"a", b"b", b"c"),
        strings(b"a", b"b")[:-1],
        strings(b"a", b"\xff"),
        b"\xff\xff\xff\x7f",
    ]
    for data in wrong:
        assert refusal(check_n_bytes, "f", tensor, data).field == "f"


def test_all_together_have_a_limit() -> None:
    check_total(MAX_BYTES)
    refusal(check_total, MAX_BYTES + 1)


X, FREE = ("x", "FP32", [2, 4]), ("free", "INT64", [7, 7])


def test_the_models_own_tensors_are_taken() -> None:
    check_ports(tensors(X, FREE), "m", FACTS)
    check_ports(tensors(FREE, X, outputs=("y",)), "m", FACTS)


@pytest.mark.parametrize(
    ("given", "said", "field"),
    [
        (tensors(X), "needs 'x', 'free'; 'free' not given", "inputs"),
        (tensors(X, X, FREE), "'x' is given twice", "inputs[1].name"),
        (tensors(X, ("z", "FP32", [1])), "has no input 'z'; its inputs are 'x', 'free'", "inputs[1].name"),
        (tensors(("x", "INT64", [2, 4]), FREE), "'x' must be FP32, not INT64", "inputs[0].datatype"),
        (tensors(("x", "FP32", [2, 5]), FREE), "must have the shape [-1, 4]", "inputs[0].shape"),
        (tensors(("x", "FP32", [4]), FREE), "must have the shape [-1, 4]", "inputs[0].shape"),
        (tensors(X, FREE, outputs=("z",)), "has no output 'z'; its outputs are 'y'", "outputs[0].name"),
    ],
)
def test_others_are_refused_by_name(given: Tensors, said: str, field: str) -> None:
    error = refusal(check_ports, given, "m", FACTS)
    assert said in error.message
    assert error.field == field


def test_a_batch_has_one_size() -> None:
    facts = msgspec.structs.replace(FACTS, batched=True)
    check_ports(tensors(X, ("free", "INT64", [2])), "m", facts)
    assert "same first size" in refusal(check_ports, tensors(X, ("free", "INT64", [3])), "m", facts).message


def test_a_size_of_none_hides_no_claim() -> None:
    error = refusal(check_shape, "inputs[0]", "x", "INT64", [2**62, 0])
    assert error.field == "inputs[0].shape"
    assert check_shape("f", "x", "INT64", [8, 0]) == 0


def test_rows_are_those_of_a_batch() -> None:
    given = [Tensor("x", "FP32", [3, 4], 48)]
    assert Tensors(given, Blob.of([bytes(48)])).n_rows == 3
    assert Tensors(given, Blob.of([bytes(48)]), batched=False).n_rows == 1
