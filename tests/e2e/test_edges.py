"""Every number of every request at every edge, over the real wire: each is answered, and the daemon stays well."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor

from inferd.protos import inferd_pb2 as pb
from inferd.protos.errors import from_rpc
from inferd.tests.e2e.daemons import ask, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from inferd.tests.e2e.daemons import Daemon

WAIT_S = 60.0
CONTEXT = 20_480  # of `small`, as conftest's config has it
REALS = (0.0, -0.0, 1e-45, 1.0, -1.0, 3.4e38, math.nan, math.inf, -math.inf)
WHOLES = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
BITS = {FieldDescriptor.TYPE_UINT32: 32, FieldDescriptor.TYPE_UINT64: 64, FieldDescriptor.TYPE_ENUM: 31}
PARTS: list[tuple[type[Message], str]] = [(pb.GenerateRequest, ""), (pb.Sampling, "sampling")]


def edges(kind: type[Message]) -> Iterator[tuple[str, Any]]:
    """Each field that is a number, with each value that it can hold."""
    for field in kind.DESCRIPTOR.fields:
        if field.is_repeated:
            continue
        if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
            yield from ((field.name, value) for value in REALS)
        elif field.type in BITS:
            yield from ((field.name, value) for value in WHOLES if value < 2 ** BITS[field.type])


GRID = [(part, name, value) for kind, part in PARTS for name, value in edges(kind)]


def answer(daemon: Daemon, request: pb.GenerateRequest) -> tuple[str, str | None]:
    """(code, the field that it names); "" when it was served."""
    try:
        for _ in daemon.inference.Generate(request, timeout=WAIT_S):
            pass
    except grpc.RpcError as error:
        refusal = from_rpc(error, daemon.address)
        return refusal.code, refusal.field
    return "", None


def test_every_number_at_every_edge_is_served_or_refused_by_its_name(daemon: Daemon) -> None:
    wrong = []
    for part, name, value in GRID:
        request = ask("fake:tokens=2", max_tokens=4)
        setattr(getattr(request, part) if part else request, name, value)
        code, field = answer(daemon, request)
        # A deadline of a moment may pass, or may not be possible to keep.
        late = name == "deadline_ms" and code in ("deadline", "overloaded")
        if code and (code, field) != ("invalid", name) and not late:
            wrong.append((name, value, code, field))
    assert wrong == []
    assert len(GRID) > 80
    until(daemon.idle)


@pytest.mark.parametrize(("n_prompt", "code"), [(CONTEXT - 1, ""), (CONTEXT, "prompt_too_long")])
def test_a_prompt_as_long_as_the_context(daemon: Daemon, n_prompt: int, code: str) -> None:
    request = pb.GenerateRequest(model="small", tokens=pb.Tokens(ids=[65] * n_prompt))
    assert answer(daemon, request)[0] == code


NAMES = (
    "/etc/passwd",
    "%2e%2e/etc/passwd",
    "..",
    ".",
    "small\0",
    "small\n",
    " small",
    "SMALL/",
    "ѕmall",  # its first letter is Cyrillic
    "small\N{ZERO WIDTH SPACE}",
    "x" * 4096,
    "{{7*7}}",
    "small;ls",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_none_is_not_found_and_not_looked_for_elsewhere(daemon: Daemon, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(daemon.inference.Generate(ask("x", name), timeout=WAIT_S))
    refusal = from_rpc(caught.value, daemon.address)
    assert (refusal.code, refusal.field) == ("not_found", "model")
    assert len(refusal.message) < 1000
