"""Tensors of the Open Inference Protocol: messages to words and back."""

from __future__ import annotations

import heapq
import math
from array import array
from typing import TYPE_CHECKING, Any

from ...backends.messages import Tensor
from ...backends.tensors import pack_strings
from ...protos import oip_pb2 as oip
from ..domain.errors import Code, InferdError
from ..domain.tensors import check_n_bytes, check_n_tensors, check_shape, check_total

if TYPE_CHECKING:
    from collections.abc import Sequence

CLASSIFICATION = "classification"  # of a requested output: as many of its best as strings
# The field of InferTensorContents that each type uses, and how `array` calls the type.
_CONTENTS = {
    "BOOL": ("bool_contents", "B"),
    "INT8": ("int_contents", "b"),
    "INT16": ("int_contents", "h"),
    "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"),
    "UINT8": ("uint_contents", "B"),
    "UINT16": ("uint_contents", "H"),
    "UINT32": ("uint_contents", "I"),
    "UINT64": ("uint64_contents", "Q"),
    "FP32": ("fp32_contents", "f"),
    "FP64": ("fp64_contents", "d"),
    "BYTES": ("bytes_contents", ""),
}
CHUNK = 1 << 16  # values that are packed at a time


def to_tensors(wire: oip.ModelInferRequest) -> tuple[list[Tensor], list[bytes]]:
    """The inputs and the bytes of each. Raises InferdError naming the first wrong field."""
    check_n_tensors("inputs", len(wire.inputs))
    check_n_tensors("outputs", len(wire.outputs))
    raw = wire.raw_input_contents
    if raw and len(raw) != len(wire.inputs):
        message = f"raw_input_contents has {len(raw)} entries, but there are {len(wire.inputs)} inputs"
        raise InferdError(Code.INVALID, message, field="raw_input_contents")
    tensors, parts = [], []
    for i, one in enumerate(wire.inputs):
        field = f"inputs[{i}]"
        check_shape(field, one.name, one.datatype, one.shape)
        _refuse_parameters(field, one.parameters)
        if raw and one.HasField("contents"):
            message = f"{field} has contents, but the bytes of all inputs are in raw_input_contents"
            raise InferdError(Code.INVALID, message, field=f"{field}.contents")
        data = raw[i] if raw else _packed(field, one.datatype, one.contents)
        tensor = Tensor(one.name, one.datatype, list(one.shape), len(data))
        check_n_bytes(f"raw_input_contents[{i}]" if raw else f"{field}.contents", tensor, data)
        tensors.append(tensor)
        parts.append(data)
    check_total(sum(map(len, parts)))
    return tensors, parts


def _refuse_parameters(field: str, parameters: Any) -> None:
    if any(name.startswith("shared_memory") for name in parameters):
        raise InferdError(Code.UNSUPPORTED, f"{field}: shared memory is not served; send the bytes", field=field)


def _packed(field: str, datatype: str, contents: oip.InferTensorContents) -> bytes:
    """Typed values as the bytes that they would be in raw_input_contents."""
    if datatype not in _CONTENTS:
        message = f"{field}: {datatype} has no contents; its bytes go into raw_input_contents"
        raise InferdError(Code.INVALID, message, field=f"{field}.contents")
    name, code = _CONTENTS[datatype]
    if any(other.name != name for other, _ in contents.ListFields()):
        raise InferdError(Code.INVALID, f"{field}: the values of {datatype} go into {name}", field=f"{field}.contents")
    values = getattr(contents, name)
    if datatype == "BYTES":
        return pack_strings(values)
    packed = array(code)
    try:
        for at in range(0, len(values), CHUNK):  # whoever waits for this thread gets a turn between two of them
            packed.extend(values[at : at + CHUNK])
        return packed.tobytes()
    except OverflowError:
        raise InferdError(Code.INVALID, f"{field}: a value is beyond {datatype}", field=f"{field}.contents") from None


def class_counts(wire: oip.ModelInferRequest) -> dict[str, int]:
    """Outputs that are wanted as their best classes, and how many of these. Raises InferdError."""
    counts = {}
    for i, output in enumerate(wire.outputs):
        _refuse_parameters(f"outputs[{i}]", output.parameters)
        if CLASSIFICATION in output.parameters:
            n = output.parameters[CLASSIFICATION].int64_param
            if not 0 <= n <= 1 << 20:
                field = f"outputs[{i}].parameters.{CLASSIFICATION}"
                raise InferdError(Code.INVALID, f"{field} must be at least 1", field=field)
            if n:
                counts[output.name] = n
    return counts


def check_outputs(wire: oip.ModelInferRequest, *names: str) -> None:
    """Of a model that has just these. Raises InferdError for any other."""
    for i, output in enumerate(wire.outputs):
        _refuse_parameters(f"outputs[{i}]", output.parameters)
        if output.name not in names:
            known = ", ".join(map(repr, names))
            message = f"outputs[{i}]: there is no output {output.name[:64]!r}, only {known}"
            raise InferdError(Code.INVALID, message, field=f"outputs[{i}].name")


def classes(tensor: Tensor, data: bytes, n_best: int, n_rows: int, labels: Sequence[str]) -> tuple[Tensor, bytes]:
    """The best of each row as "value:index:label", the best first. Raises InferdError where values have no order."""
    code = _CONTENTS.get(tensor.datatype, ("", ""))[1]
    if not code:
        message = f"outputs: {tensor.name!r} is {tensor.datatype}, of which there are no classes"
        raise InferdError(Code.INVALID, message, field="outputs")
    values = array(code, data)
    rows = [n_rows]
    if labels and tensor.shape[-1:] == [len(labels)]:  # one of each label, of whatever is before: rows, tokens
        rows = tensor.shape[:-1]
    size = max(1, math.prod(tensor.shape) // max(1, math.prod(rows)))
    n_best = min(n_best, size)
    said = []
    for start in range(0, len(values), size):
        for i in heapq.nlargest(n_best, range(size), key=values[start : start + size].__getitem__):
            label = f":{labels[i]}" if i < len(labels) else ""
            said.append(f"{values[start + i]:f}:{i}{label}".encode())
    packed = pack_strings(said)
    return Tensor(tensor.name, "BYTES", [*rows, n_best], len(packed)), packed


def response(
    wire: oip.ModelInferRequest, version: str, outputs: Sequence[tuple[Tensor, bytes]], **parameters: object
) -> oip.ModelInferResponse:
    answer = oip.ModelInferResponse(model_name=wire.model_name, model_version=version, id=wire.id)
    for tensor, data in outputs:
        answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        answer.raw_output_contents.append(data)
    for name, value in parameters.items():
        answer.parameters[name].CopyFrom(parameter(value))
    return answer


def parameter(value: object) -> oip.InferParameter:
    if isinstance(value, bool):
        return oip.InferParameter(bool_param=value)
    if isinstance(value, int):
        return oip.InferParameter(int64_param=value)
    return (
        oip.InferParameter(double_param=value)
        if isinstance(value, float)
        else oip.InferParameter(string_param=str(value))
    )
