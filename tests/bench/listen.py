"""One client process of the fan-out probe: reads its streams and keeps when each token left and came.

`python -m tests.bench.listen ADDRESS MODEL STREAMS TOKENS FIRST` says "ready", waits for a line, reads, and prints one
JSON array: for each stream its messages as [when it came, [when each token left the engine]], in monotonic seconds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time

from inferd import AsyncClient

Message = tuple[float, list[float]]
CLOCK = b" fake:clock=1"


async def read_one(client: AsyncClient, model: str, first: int, n_tokens: int) -> list[Message]:
    messages: list[tuple[float, str]] = []
    prompt = [first, *CLOCK]
    async for event in client.generate(model, prompt, max_tokens=n_tokens, ignore_eos=True, temperature=0.0).events():
        if event.HasField("delta"):
            messages.append((time.monotonic(), event.delta.text))
    return [(came_s, [int(word) / 1e6 for word in text.split()]) for came_s, text in messages]


async def main(address: str, model: str, n_streams: int, n_tokens: int, first: int) -> None:
    async with AsyncClient(address) as client:
        await asyncio.gather(*(read_one(client, model, first + i, 8) for i in range(n_streams)))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        gc.disable()  # it would be the client's pause, not the daemon's
        streams = await asyncio.gather(*(read_one(client, model, first + i, n_tokens) for i in range(n_streams)))
    print(json.dumps(streams), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])))
