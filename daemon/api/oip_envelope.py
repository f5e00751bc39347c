"""What requests of the Open Inference Protocol say of themselves: priority, deadline, and how texts are drawn."""

from __future__ import annotations

import json
import math
import secrets
from typing import TYPE_CHECKING, Any

from ...backends.tensors import unpack_strings
from ...protos import inferd_pb2 as pb
from ..domain.errors import Code, InferdError
from ..domain.inputs import MAX_INPUTS
from ..domain.request import MAX_ID_CHARS, RANGES, Priority

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from ...backends.messages import Tensor
    from ...protos import oip_pb2 as oip

# Triton's polarity: 0 is the default, 1 the highest, and what is larger is lower.
LEVELS = (Priority.INTERACTIVE, Priority.INTERACTIVE, Priority.NORMAL, Priority.BATCH)
# Inputs of a model that writes text, as Triton's backend for vLLM has them.
TEXT, STREAM, SAMPLING, ECHO = "text_input", "stream", "sampling_parameters", "exclude_input_in_output"
TEXT_INPUTS = {TEXT, STREAM, SAMPLING, ECHO}
# What may be said of sampling, by the names of the field; and those that others use for the same.
SAMPLED = {
    *("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty"),
    *("seed", "ignore_eos", "min_tokens"),
}
ALIASES = {"repetition_penalty": "repeat_penalty", "random_seed": "seed", "max_new_tokens": "max_tokens"}
MAX_DIGITS = 20  # of a number that is said as text
RESERVED = {"priority", "timeout", "sequence_id", "sequence_start", "sequence_end", "headers", "binary_data_output"}


def value_of(parameter: oip.InferParameter) -> Any:
    which = parameter.WhichOneof("parameter_choice")
    return None if which is None else getattr(parameter, which)


def envelope(wire: oip.ModelInferRequest, tenant: str, taken: Container[str]) -> dict[str, Any]:
    """As fields of a Request; `taken`: ids in use, as these clients need not choose them apart. Raises InferdError."""
    if not wire.model_name:
        raise InferdError(Code.INVALID, "model_name is missing", field="model_name")
    usable = 0 < len(wire.id) <= MAX_ID_CHARS and wire.id.isprintable() and wire.id.isascii() and wire.id not in taken
    return {
        "id": wire.id if usable else f"r{secrets.token_hex(6)}",
        "model": wire.model_name,
        "priority": LEVELS[min(_count(wire, "priority"), len(LEVELS) - 1)],
        "tenant": tenant,
        "deadline_ms": _deadline_ms(wire),
    }


def _deadline_ms(wire: oip.ModelInferRequest) -> int | None:
    """From microseconds; 0 is none, and so is what nobody would live to see."""
    deadline_ms = -(-_count(wire, "timeout") // 1000)
    return deadline_ms if 0 < deadline_ms <= RANGES["deadline_ms"][1] else None


def _count(wire: oip.ModelInferRequest, name: str) -> int:
    """A parameter that is a number and not negative; 0 without it. Raises InferdError."""
    value = value_of(wire.parameters[name]) if name in wire.parameters else 0
    if isinstance(value, str) and len(value) <= MAX_DIGITS and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        field = f"parameters.{name}"
        raise InferdError(Code.INVALID, f"{field} must be a whole number, at least 0", field=field)
    return value


def session_id(wire: oip.ModelInferRequest) -> str:
    return str(value_of(wire.parameters["sequence_id"]) or "") if "sequence_id" in wire.parameters else ""


def to_generate(wire: oip.ModelInferRequest, inputs: Sequence[tuple[Tensor, bytes]]) -> pb.GenerateRequest:
    """The same as a GenerateRequest, whose door checks it. Raises InferdError naming the first wrong field."""
    asked = pb.GenerateRequest(model=wire.model_name, session_id=session_id(wire))
    for tensor, data in inputs:
        if tensor.name == TEXT:
            (asked.prompt,) = texts(tensor, data, most=1)
        elif tensor.name == SAMPLING:
            _sample(asked, _object(*texts(tensor, data, most=1)), SAMPLING)
    if flag(inputs, ECHO) is False:
        raise InferdError(Code.UNSUPPORTED, f"{ECHO}: an answer never begins with its prompt", field=ECHO)
    given = {name: value_of(one) for name, one in wire.parameters.items()}
    plain = {n: v for n, v in given.items() if n not in RESERVED and not n.startswith("triton_") and n != STREAM}
    _sample(asked, plain, "parameters")
    return asked


def texts(tensor: Tensor, data: bytes, most: int = MAX_INPUTS) -> list[str]:
    """The elements of an input that is to be text. Raises InferdError."""
    name, n = tensor.name, math.prod(tensor.shape)
    if tensor.datatype != "BYTES":
        raise InferdError(Code.INVALID, f"{name} must be BYTES, not {tensor.datatype}", field=name)
    if not 1 <= n <= most:
        wanted = "one element" if most == 1 else f"1 to {most:,} elements"
        raise InferdError(Code.INVALID, f"{name} must have {wanted}, not {n:,}", field=name, highest=most)
    return list(unpack_strings(data))


def flag(inputs: Sequence[tuple[Tensor, bytes]], name: str) -> bool | None:
    """The value of such an input; None where it is not given. Raises InferdError."""
    for tensor, data in inputs:
        if tensor.name == name:
            if tensor.datatype != "BOOL" or len(data) != 1:
                raise InferdError(Code.INVALID, f"{name} must be one BOOL", field=name)
            return data != b"\0"
    return None


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InferdError(Code.INVALID, f"{SAMPLING} must be a JSON object", field=SAMPLING)
    return value


def _sample(asked: pb.GenerateRequest, given: Mapping[str, Any], where: str) -> None:
    """Strings stand for numbers, too: some clients can send nothing else."""
    for said, value in given.items():
        name, field = ALIASES.get(said, said), f"{where}.{said}"
        try:
            if name == "max_tokens":
                asked.max_tokens = int(value)
            elif name == "stop":
                asked.stop.extend(value if isinstance(value, list) else [value])
            elif name in ("top_k", "seed", "min_tokens"):
                setattr(asked.sampling, name, int(value))
            elif name == "ignore_eos":
                asked.sampling.ignore_eos = str(value).lower() in ("true", "1")
            elif name in SAMPLED:
                setattr(asked.sampling, name, float(value))
            else:
                raise InferdError(Code.INVALID, f"{field} is not known", field=field)
        except (TypeError, ValueError, OverflowError):
            raise InferdError(Code.INVALID, f"{field} has no such value: {str(value)[:32]!r}", field=field) from None
