"""One client process of the load runs: requests at a set rate, whether or not the ones before have been answered.

`python -m tests.chaos.crowd ADDRESS MODEL RATE SECONDS N_TOKENS SEED` says "ready", waits for a line, asks, and prints
one JSON array: of each request [asked_s, first_token_s or null, ended_s, code, tokens], in monotonic seconds.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from typing import Any

import grpc
import msgspec

from inferd.protos import inferd_pb2 as pb
from inferd.protos import inferd_pb2_grpc as stubs
from inferd.protos.errors import from_rpc

LIMIT_S = 60.0
N_TENANTS = 8
OPTIONS = [("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]


class Outcome(msgspec.Struct, array_like=True):
    """What one request became."""

    asked_s: float
    first_s: float | None
    ended_s: float
    code: str  # "": it was answered
    n_tokens: int


async def ask(
    stub: Any, model: str, n_tokens: int, tenant: str, priority: pb.Priority.ValueType = pb.NORMAL
) -> Outcome:
    prompt = f"fake:tokens={n_tokens}"
    request = pb.GenerateRequest(model=model, prompt=prompt, priority=priority)
    asked_s, first_s, n_got, code = time.monotonic(), None, 0, ""
    try:
        async for event in stub.Generate(request, timeout=LIMIT_S, metadata=(("inferd-tenant", tenant),)):
            if event.HasField("delta"):
                first_s = first_s or time.monotonic()
                n_got += len(event.delta.tokens)
    except grpc.RpcError as error:
        code = from_rpc(error, "").code
    return Outcome(asked_s, first_s, time.monotonic(), code, n_got)


async def main(address: str, model: str, rate: float, seconds: float, n_tokens: int, seed: int) -> None:
    rng = random.Random(seed)
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        stub = stubs.InferenceStub(channel)
        await ask(stub, model, 1, "warm")
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        gc.disable()
        next_s = time.monotonic()
        end_s = next_s + seconds
        asking: list[asyncio.Task[Outcome]] = []
        while next_s < end_s:
            asking.append(asyncio.create_task(ask(stub, model, n_tokens, f"t{rng.randrange(N_TENANTS)}")))
            next_s += rng.expovariate(rate)
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
        outcomes = await asyncio.gather(*asking)
    sys.stdout.buffer.write(msgspec.json.encode(outcomes) + b"\n")


if __name__ == "__main__":
    rate, seconds = map(float, sys.argv[3:5])
    asyncio.run(main(sys.argv[1], sys.argv[2], rate, seconds, *map(int, sys.argv[5:7])))
