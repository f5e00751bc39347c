from __future__ import annotations

import struct
from typing import Any

import pytest

from inferd.backends.messages import Tensor
from inferd.backends.tensors import unpack_strings
from inferd.daemon.api.oip_tensors import (
    class_counts,
    classes,
    parameter,
    response,
    to_tensors,
)
from inferd.daemon.domain.errors import Code, InferdError
from inferd.protos import oip_pb2 as oip


def wire(*inputs: dict[str, Any], raw: list[bytes] | None = None, **fields: Any) -> oip.ModelInferRequest:
    return oip.ModelInferRequest(**{"model_name": "m", "inputs": inputs, "raw_input_contents": raw or []} | fields)


def one(name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (2,), **contents: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **({"contents": contents} if contents else {})}


def refusal(call: Any, *arguments: Any) -> InferdError:
    with pytest.raises(InferdError) as caught:
        call(*arguments)
    return caught.value


def test_raw_bytes_are_passed_on() -> None:
    tensors, parts = to_tensors(wire(one(), one("y", "INT8", (3,)), raw=[bytes(8), b"abc"]))
    assert tensors == [Tensor("x", "FP32", [2], 8), Tensor("y", "INT8", [3], 3)]
    assert parts == [bytes(8), b"abc"]


@pytest.mark.parametrize(
    ("datatype", "contents", "packed"),
    [
        ("BOOL", {"bool_contents": [True, False]}, b"\x01\x00"),
        ("INT8", {"int_contents": [-1, 2]}, b"\xff\x02"),
        ("INT16", {"int_contents": [-1, 2]}, struct.pack("<2h", -1, 2)),
        ("INT32", {"int_contents": [-1, 2]}, struct.pack("<2i", -1, 2)),
        ("INT64", {"int64_contents": [-1, 2]}, struct.pack("<2q", -1, 2)),
        ("UINT8", {"uint_contents": [255, 2]}, b"\xff\x02"),
        ("UINT16", {"uint_contents": [255, 2]}, struct.pack("<2H", 255, 2)),
        ("UINT32", {"uint_contents": [255, 2]}, struct.pack("<2I", 255, 2)),
        ("UINT64", {"uint64_contents": [255, 2]}, struct.pack("<2Q", 255, 2)),
        ("FP32", {"fp32_contents": [1.5, 2]}, struct.pack("<2f", 1.5, 2)),
        ("FP64", {"fp64_contents": [1.5, 2]}, struct.pack("<2d", 1.5, 2)),
        ("BYTES", {"bytes_contents": [b"a", b""]}, b"\x01\0\0\0a\0\0\0\0"),
    ],
)
def test_typed_values_become_the_same_bytes(datatype: str, contents: Any, packed: bytes) -> None:
    tensors, parts = to_tensors(wire(one(datatype=datatype, **contents)))
    assert parts == [packed]
    assert tensors[0].n_bytes == len(packed)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (wire(one(), raw=[bytes(8), bytes(8)]), "raw_input_contents"),
        (wire(one(), raw=[bytes(7)]), "raw_input_contents[0]"),
        (wire(one(fp32_contents=[1, 2]), raw=[bytes(8)]), "inputs[0].contents"),
        (wire(one()), "inputs[0].contents"),
        (wire(one(fp32_contents=[1])), "inputs[0].contents"),
        (wire(one(int_contents=[1, 2])), "inputs[0].contents"),
        (wire(one(datatype="INT8", int_contents=[1, 300])), "inputs[0].contents"),
        (wire(one(datatype="FP16", fp32_contents=[1, 2])), "inputs[0].contents"),
        (wire(one(name="")), "inputs[0].name"),
        (wire(one(shape=(-1,))), "inputs[0].shape"),
        (wire(one(shape=(1 << 40, 1 << 40)), raw=[b""]), "inputs[0].shape"),
        (wire(one(datatype="BYTES"), raw=[b"\x01\0\0\0a\x01\0\0\0\xff"]), "raw_input_contents[0]"),
    ],
)
def test_what_does_not_fit_is_refused_by_field(request_: oip.ModelInferRequest, field: str) -> None:
    error = refusal(to_tensors, request_)
    assert (error.code, error.field) == (Code.INVALID, field)


def test_shared_memory_is_refused_by_name() -> None:
    request = wire(one())
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"
    assert refusal(to_tensors, request).code is Code.UNSUPPORTED


def strings(data: bytes) -> list[str]:
    return list(unpack_strings(data))


def wanted(n: int) -> oip.ModelInferRequest:
    request = wire(outputs=[{"name": "y"}])
    request.outputs[0].parameters["classification"].int64_param = n
    return request


def test_classes_are_counted_per_output() -> None:
    assert class_counts(wanted(3)) == {"y": 3}
    assert class_counts(wanted(0)) == {}
    assert class_counts(wire(outputs=[{"name": "y"}])) == {}
    assert refusal(class_counts, wanted(-1)).field == "outputs[0].parameters.classification"


def test_the_best_of_each_row_come_first() -> None:
    data = struct.pack("<6f", 0.1, 0.7, 0.2, 3.0, 1.0, 2.0)
    tensor, packed = classes(Tensor("y", "FP32", [2, 3], 24), data, 2, 2, ["a", "b"])
    assert (tensor.datatype, tensor.shape, tensor.n_bytes) == ("BYTES", [2, 2], len(packed))
    assert strings(packed) == ["0.700000:1:b", "0.200000:2", "3.000000:0:a", "2.000000:2"]


def test_more_classes_than_there_are_is_all_of_them() -> None:
    tensor, packed = classes(Tensor("y", "INT64", [1, 2], 16), struct.pack("<2q", 5, 9), 99, 1, [])
    assert tensor.shape == [1, 2]
    assert [value.partition(":")[2] for value in strings(packed)] == ["1", "0"]


def test_labels_are_those_of_the_last_axis() -> None:
    data = struct.pack("<8f", *range(8))
    tensor, packed = classes(Tensor("y", "FP32", [1, 4, 2], 32), data, 1, 1, ["O", "NAME"])
    assert tensor.shape == [1, 4, 1]
    assert {value.split(":")[2] for value in strings(packed)} == {"NAME"}


def test_what_has_no_order_has_no_classes() -> None:
    assert refusal(classes, Tensor("y", "BYTES", [1], 4), bytes(4), 1, 1, []).field == "outputs"


def test_an_answer_has_its_bytes_beside_it() -> None:
    answer = response(
        wire(id="mine"), "1", [(Tensor("y", "FP32", [2], 8), bytes(8))], done=True, n=3, x=0.5, why="stop"
    )
    assert (answer.id, answer.model_name, answer.model_version) == ("mine", "m", "1")
    assert (answer.outputs[0].name, list(answer.outputs[0].shape)) == ("y", [2])
    assert list(answer.raw_output_contents) == [bytes(8)]
    assert answer.parameters["done"].bool_param
    assert answer.parameters["n"].int64_param == 3
    assert answer.parameters["x"].double_param == 0.5
    assert answer.parameters["why"].string_param == "stop"
    assert parameter(None).string_param == "None"
