"""What an ONNX file says of itself: its inputs and outputs, its operators and where its weights are. Nothing is loaded.

Field numbers: onnx.proto3 of the ONNX specification, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

from .proto import BadProto, Span, message, signed

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 32  # graphs inside graphs
MAX_TENSORS = 4096  # inputs and outputs
MAX_AXES = 64  # of a tensor; NumPy has no more
EXTERNAL = 1  # TensorProto.DataLocation
LEAST_PER_BYTE = 4  # weights of two bits are the smallest

# TensorProto.DataType -> (the Open Inference Protocol's name, bits); what it has no name for cannot be sent.
DATA_TYPES: dict[int, tuple[str, int]] = {
    1: ("FP32", 32),
    2: ("UINT8", 8),
    3: ("INT8", 8),
    4: ("UINT16", 16),
    5: ("INT16", 16),
    6: ("INT32", 32),
    7: ("INT64", 64),
    8: ("BYTES", 8),
    9: ("BOOL", 8),
    10: ("FP16", 16),
    11: ("FP64", 64),
    12: ("UINT32", 32),
    13: ("UINT64", 64),
    14: ("", 64),  # complex64
    15: ("", 128),  # complex128
    16: ("", 16),  # bfloat16: the runtime takes none of it from us
    17: ("", 8),  # float8e4m3fn
    18: ("", 8),
    19: ("", 8),
    20: ("", 8),
    21: ("", 4),  # uint4
    22: ("", 4),  # int4
    23: ("", 4),  # float4e2m1
    24: ("", 8),  # float8e8m0
    25: ("", 2),  # uint2
    26: ("", 2),  # int2
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output. `axes` has a number for each fixed axis and a name, maybe "", for each that is not."""

    name: str
    datatype: str  # "": none that can be sent, or no tensor at all
    axes: tuple[int | str, ...] | None  # None: not even their number is known


@dataclass(frozen=True, slots=True)
class External:
    """Weights in a file beside the model's."""

    location: str  # as the file has it
    offset: int
    n_bytes: int


@dataclass(slots=True)
class Graph:
    ir_version: int = 0
    producer: str = ""
    opsets: dict[str, int] = field(default_factory=dict)  # by domain; "" is ONNX itself
    inputs: list[Tensor] = field(default_factory=list)  # that are to be given
    outputs: list[Tensor] = field(default_factory=list)
    ops: set[tuple[str, str]] = field(default_factory=set)  # (domain, operator), in subgraphs and functions, too
    functions: set[tuple[str, str]] = field(default_factory=set)  # operators that the file itself defines
    external: list[External] = field(default_factory=list)
    n_nodes: int = 0
    n_params: int = 0  # elements of initializers
    weights_bytes: int = 0  # of those and of constants, wherever they are
    types: dict[int, int] = field(default_factory=dict)  # bytes of initializers by TensorProto.DataType


def read(path: str) -> Graph:
    """Raises OSError, and BadProto for what is no ONNX model."""
    with open(path, "rb", buffering=0, opener=_opener) as file:
        if not os.fstat(file.fileno()).st_size:
            raise BadProto("the file is empty")
        return parse(file)


def parse(file: BinaryIO) -> Graph:
    """Raises BadProto."""
    reader = _Reader()
    reader.model(message(file))
    return reader.graph


class _Reader:
    """Walks a model and fills in a Graph."""

    def __init__(self) -> None:
        self.graph = Graph()
        self._initialized: set[str] = set()

    def model(self, model: Span) -> None:
        graph, bodies = self.graph, []
        for number, value in model.fields():
            match number, value:
                case 1, int():
                    graph.ir_version = value
                case 2, Span():
                    graph.producer = value.text()[:128]
                case 7, Span():
                    bodies.append(value)
                case 8, Span():
                    domain, version = self._opset(value)
                    graph.opsets[domain] = version
                case 25, Span():
                    self._function(value)
        if graph.ir_version <= 0 or len(bodies) != 1 or not graph.opsets:
            raise BadProto("it has no graph")
        self._graph(bodies[0], depth=0)
        graph.inputs = [tensor for tensor in graph.inputs if tensor.name not in self._initialized]
        if not graph.outputs:
            raise BadProto("its graph has no outputs")

    def _opset(self, opset: Span) -> tuple[str, int]:
        domain, version = "", 0
        for number, value in opset.fields():
            if number == 1 and isinstance(value, Span):
                domain = value.text()
            elif number == 2 and isinstance(value, int):
                version = value
        return ("" if domain == "ai.onnx" else domain), version

    def _graph(self, graph: Span, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise BadProto(f"graphs are nested more than {MAX_DEPTH} deep")
        for number, value in graph.fields():
            if not isinstance(value, Span):
                continue
            match number:
                case 1:
                    self._node(value, depth)
                case 5:
                    self._tensor(value, initializer=True)
                case 15:
                    self._sparse(value)
                case 11 | 12 if depth == 0:
                    tensors = self.graph.inputs if number == 11 else self.graph.outputs
                    if len(tensors) >= MAX_TENSORS:
                        raise BadProto(f"it has more than {MAX_TENSORS:,} inputs or outputs")
                    tensors.append(_value_info(value))

    def _function(self, function: Span) -> None:
        name = domain = ""
        for number, value in function.fields():
            if not isinstance(value, Span):
                continue
            if number == 1:
                name = value.text()
            elif number == 10:
                domain = value.text()
            elif number == 7:
                self._node(value, depth=1)
            elif number == 11:
                self._attribute(value, depth=1)
        self.graph.functions.add((domain, name))

    def _node(self, node: Span, depth: int) -> None:
        op = domain = ""
        self.graph.n_nodes += 1
        for number, value in node.fields():
            if not isinstance(value, Span):
                continue
            if number == 4:
                op = value.text()
            elif number == 7:
                domain = value.text()
            elif number == 5:
                self._attribute(value, depth)
        self.graph.ops.add(("" if domain == "ai.onnx" else domain, op))

    def _attribute(self, attribute: Span, depth: int) -> None:
        for number, value in attribute.fields():
            if not isinstance(value, Span):
                continue
            match number:
                case 5 | 10:
                    self._tensor(value)
                case 6 | 11:
                    self._graph(value, depth + 1)
                case 22 | 23:
                    self._sparse(value)

    def _sparse(self, sparse: Span) -> None:
        for number, value in sparse.fields():
            if number in (1, 2) and isinstance(value, Span):
                self._tensor(value, initializer=number == 1)

    def _tensor(self, tensor: Span, *, initializer: bool = False) -> None:
        dims: list[int] = []
        entries: dict[str, str] = {}
        data_type = location = 0
        name = ""
        for number, value in tensor.fields():
            match number, value:
                case 1, int():
                    dims.append(signed(value))
                case 1, Span():
                    dims += map(signed, islice(value.varints(), MAX_AXES + 1))
                case 2, int():
                    data_type = value
                case 8, Span():
                    name = value.text()
                case 13, Span():
                    key, text = _pair(value)
                    entries[key] = text
                case 14, int():
                    location = value
            if len(dims) > MAX_AXES:  # before their product is made, which would have as many digits as they
                raise BadProto(f"a tensor has more than {MAX_AXES} axes")
        n_bytes = self._count(dims, data_type, initializer=initializer)
        if initializer:
            self._initialized.add(name)
        if location == EXTERNAL or entries:
            self.graph.external.append(_external(entries, n_bytes))
        elif math.prod(dims) > LEAST_PER_BYTE * len(tensor):
            raise BadProto("the weights are shorter than they say")

    def _count(self, dims: list[int], data_type: int, *, initializer: bool) -> int:
        """Its bytes, which are added to what the graph has."""
        if data_type not in DATA_TYPES:
            raise BadProto(f"data type {data_type} does not exist")
        if any(dim < 0 for dim in dims):
            raise BadProto("the weights have a negative size")
        n = math.prod(dims)
        n_bytes = -(-n * DATA_TYPES[data_type][1] // 8)
        graph = self.graph
        graph.weights_bytes += n_bytes
        if initializer:
            graph.n_params += n
            graph.types[data_type] = graph.types.get(data_type, 0) + n_bytes
        return n_bytes


def _external(entries: dict[str, str], n_bytes: int) -> External:
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", n_bytes))
    except ValueError:
        raise BadProto("weights in another file have no valid place there") from None
    if offset < 0 or length != n_bytes or "location" not in entries:
        raise BadProto("weights in another file have no valid place there")
    return External(entries["location"], offset, length)


def _pair(entry: Span) -> tuple[str, str]:
    """A StringStringEntryProto."""
    parts = {number: value.text() for number, value in entry.fields() if isinstance(value, Span)}
    return parts.get(1, ""), parts.get(2, "")


def _value_info(info: Span) -> Tensor:
    name, datatype, axes = "", "", None
    for number, value in info.fields():
        if number == 1 and isinstance(value, Span):
            name = value.text()
        elif number == 2 and isinstance(value, Span):
            for tensor in value.spans(1):
                datatype, axes = _tensor_type(tensor)
    return Tensor(name, datatype, axes)


def _tensor_type(tensor: Span) -> tuple[str, tuple[int | str, ...] | None]:
    datatype, axes = "", None
    for number, value in tensor.fields():
        if number == 1 and isinstance(value, int):
            datatype = DATA_TYPES.get(value, ("", 0))[0]
        elif number == 2 and isinstance(value, Span):
            axes = tuple(islice(_axes(value), MAX_AXES + 1))
            if len(axes) > MAX_AXES:
                raise BadProto(f"a tensor has more than {MAX_AXES} axes")
    return datatype, axes


def _axes(shape: Span) -> Iterator[int | str]:
    for dim in shape.spans(1):
        axis: int | str = ""
        for number, value in dim.fields():
            if number == 1 and isinstance(value, int):
                axis = signed(value)
            elif number == 2 and isinstance(value, Span):
                axis = value.text()
        yield "" if isinstance(axis, int) and axis < 0 else axis


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe in its place must not hold us
