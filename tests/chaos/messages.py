"""Mutated protobuf messages to every method of every service: each is answered with a status of ours, and the log
holds no exception. Methods and messages are found by their descriptors, so that a new one is covered when it is added.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor import FieldDescriptor

from inferd.protos import inferd_pb2 as pb
from inferd.protos import inferd_pb2_grpc as stubs
from inferd.protos import oip_pb2
from inferd.protos.address import admin_beside

from ..bench.figures import Outcome, of_runs, percentile
from .house import daemon, exceptions, small_gguf

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, MethodDescriptor
    from google.protobuf.message import Message

CONFIG = """
[fake]
enabled = true
[models.defaults]
slots = 8
context_tokens = 512
"""
LIMIT_S = 0.1  # of calls that would go on for ever: watches, leases
N_AT_ONCE = 32
MAX_DEPTH = 4
TEXTS = ("", "small", "other", "x", "fake:tokens=3", "../../etc/passwd", "a\0b", "é" * 200, "{" * 300, "x" * 5000)
NUMBERS = (0, 1, 2, 7, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
REALS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 3.4e38, math.nan, math.inf, -math.inf)
BAD = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)
LENGTHS = {FieldDescriptor.TYPE_INT32: 31, FieldDescriptor.TYPE_UINT32: 32, FieldDescriptor.TYPE_INT64: 63}
DEEP = 10_000


def methods() -> list[MethodDescriptor]:
    """All of them, by their descriptors."""
    files = (pb.DESCRIPTOR, oip_pb2.DESCRIPTOR)
    return [m for file in files for service in file.services_by_name.values() for m in service.methods]


def fill(rng: random.Random, message: Message, depth: int = 0) -> Message:
    """Some of its fields, with values that are often at the edge of something."""
    for one in message.DESCRIPTOR.fields:
        if rng.random() < 0.5:
            _set(rng, message, one, depth)
    return message


def _set(rng: random.Random, message: Message, one: FieldDescriptor, depth: int) -> None:
    if _is_map(one):
        entry = one.message_type.fields_by_name
        key = _value(rng, entry["key"])
        held: Any = getattr(message, one.name)
        if entry["value"].type == FieldDescriptor.TYPE_MESSAGE:
            if depth < MAX_DEPTH:
                fill(rng, held[key], depth + 1)
        else:
            held[key] = _value(rng, entry["value"])
        return
    times = rng.choice((1, 1, 2, 20)) if one.is_repeated else 1
    for _ in range(times):
        if one.type == FieldDescriptor.TYPE_MESSAGE:
            if depth < MAX_DEPTH:
                inner = getattr(message, one.name)
                fill(rng, inner.add() if one.is_repeated else inner, depth + 1)
        elif one.is_repeated:
            getattr(message, one.name).append(_value(rng, one))
        else:
            setattr(message, one.name, _value(rng, one))


def _is_map(one: FieldDescriptor) -> bool:
    return one.type == FieldDescriptor.TYPE_MESSAGE and bool(one.message_type.GetOptions().map_entry)


def _value(rng: random.Random, one: FieldDescriptor) -> Any:
    match one.type:
        case FieldDescriptor.TYPE_STRING:
            return "small" if one.name in ("model", "model_name") and rng.random() < 0.7 else rng.choice(TEXTS)
        case FieldDescriptor.TYPE_BYTES:
            return rng.randbytes(rng.choice((0, 1, 4, 16, 1000)))
        case FieldDescriptor.TYPE_BOOL:
            return rng.random() < 0.5
        case FieldDescriptor.TYPE_FLOAT | FieldDescriptor.TYPE_DOUBLE:
            return rng.choice(REALS)
        case FieldDescriptor.TYPE_ENUM:
            return rng.choice((0, 1, 2, 3, 99, 2**31 - 1))
        case kind:
            value = rng.choice(NUMBERS)
            return value & (2 ** LENGTHS.get(kind, 64) - 1)


def mutate(rng: random.Random, raw: bytes) -> bytes:
    """The bytes of a message, or what is left of them."""
    match rng.randrange(8):
        case 0:
            return raw
        case 1:
            return raw[: rng.randrange(len(raw) + 1)]
        case 2:
            at = rng.randrange(len(raw) + 1)
            return raw[:at] + rng.randbytes(rng.randrange(1, 20)) + raw[at:]
        case 3:
            at = rng.randrange(len(raw) + 1)
            return raw[:at] + raw[at + rng.randrange(1, 20) :]
        case 4:
            return raw + raw
        case 5:  # a field that nobody knows
            return raw + b"\xfa\xff\x03" + _varint(1000) + bytes(1000)
        case _:
            out = bytearray(raw or b"\0")
            for _ in range(rng.choice((1, 1, 2, 10))):
                out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
            return bytes(out)


def extremes(message: Descriptor) -> list[bytes]:
    """Of every method: nothing, too deep, one large unknown field, a length that lies."""
    nested = b""
    for _ in range(DEEP):
        if len(nested) > 2_000_000:
            break
        nested = b"\x0a" + _varint(len(nested)) + nested  # field 1, over and over
    groups = b"\x0b" * DEEP
    large = b"\xfa\xff\x03" + _varint(1 << 20) + bytes(1 << 20)
    return [b"", nested, groups, large, b"\x0a\xff\xff\xff\xff\x0f", b"\xff" * 64, b"\x08" + b"\xff" * 10]


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


@dataclass(slots=True)
class Tally:
    statuses: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    times_ms: list[float] = field(default_factory=list)


async def attack(channel: Any, method: MethodDescriptor, n: int, rng: random.Random, tally: Tally) -> None:
    """So many messages to one method."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call = getattr(channel, kind)(path)
    make = _maker(method)
    waiting = chain(extremes(method.input_type), (mutate(rng, make(rng)) for _ in range(n)))

    async def one_after_the_other() -> None:
        for raw in waiting:
            start_s = time.monotonic()
            status = await _send(call, method, raw)
            tally.statuses[status.name] += 1
            if not method.server_streaming:
                tally.times_ms.append((time.monotonic() - start_s) * 1e3)
            if status in BAD:
                tally.bad.append(f"{path}: {status.name} for {raw[:80]!r}")

    await asyncio.gather(*(one_after_the_other() for _ in range(N_AT_ONCE)))


def _maker(method: MethodDescriptor) -> Any:
    from google.protobuf.message_factory import GetMessageClass

    kind: Any = GetMessageClass(method.input_type)
    return lambda rng: fill(rng, kind()).SerializeToString()


async def _send(call: Any, method: MethodDescriptor, raw: bytes) -> grpc.StatusCode:
    given: Any = iter([raw]) if method.client_streaming else raw
    try:
        under_way = call(given, timeout=LIMIT_S if method.server_streaming else 30.0)
        if method.server_streaming:
            async for _ in under_way:
                pass
        else:
            await under_way
    except grpc.RpcError as error:
        status: grpc.StatusCode = error.code()
        return status
    return grpc.StatusCode.OK


async def attack_all(address: str, n: int, seed: int) -> Tally:
    """From a socket on which one may do everything."""
    tally = Tally()
    options = [("grpc.default_authority", "localhost"), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        for method in methods():
            await attack(channel, method, n, random.Random(f"{seed} {method.full_name}"), tally)
            drain: Any = stubs.AdminStub(channel).Drain
            await drain(pb.DrainRequest(draining=False), timeout=10)
    return tally


def measure(*, quick: bool, seed: int, n: int = 0) -> Outcome:
    n = n or (40 if quick else 5_000)
    with daemon(CONFIG, {"small": small_gguf(), "other": small_gguf()}) as (one, _):
        one.client.generate("small", "fake:tokens=3").text()
        before_bytes = one.rss_bytes()
        start_s = time.monotonic()
        address = admin_beside(one.address)
        assert address is not None
        tally = asyncio.run(attack_all(address, n, seed))
        took_s = time.monotonic() - start_s
        one.client.generate("small", "fake:tokens=3").text()  # it is well
        grown = one.rss_bytes() - before_bytes
        logged = exceptions(one)
    title = f"{n:,} messages to each of {len(methods())} methods"
    statuses = ", ".join(f"{status} {count}" for status, count in tally.statuses.most_common())
    return Outcome(
        [
            of_runs(f"{title}: exceptions in the log", [logged], "", at_most=0),
            of_runs(f"{title}: INTERNAL or UNKNOWN", [len(tally.bad)], "", at_most=0),
            of_runs(f"{title}: growth of the daemon", [grown / 2**20], "MiB", at_most=100),
        ],
        [
            f"- messages: {statuses}; {sum(tally.statuses.values()) / took_s:,.0f}/s, {N_AT_ONCE} at once, "
            f"p99 of unary ones {percentile(tally.times_ms, 0.99):.1f} ms.",
            *(f"  - BAD {one}" for one in tally.bad[:20]),
        ],
    )
