"""One client process of the chaos run: asks, cancels, leaves, and writes down all that it sees.

`python -m tests.chaos.clients ADDRESS FILE SEED SECONDS THREADS MODEL` asks for so long, waits for what it asked, and
ends. It may be killed at any time: its file is whole but for the last line.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import grpc

from inferd.protos import inferd_pb2 as pb
from inferd.protos import inferd_pb2_grpc as stubs
from inferd.protos.errors import from_rpc
from inferd.tests.e2e.daemons import dial

from .history import DONE, line
from .truths import PROMPTS

LIMIT_S = 60.0  # what has no end after so long is lost: its history says DEADLINE_EXCEEDED
REFUSALS = ("draining", "queue_full", "overloaded", "no_room")  # at the door, in so many words
PRIORITIES = (pb.INTERACTIVE, pb.NORMAL, pb.BATCH)
PAUSE_S = 0.05  # mean, between two requests of a thread
# Every model is at its end now and then; one that was refused is not accepted, and comes back after a moment.
BACK_OFF_S = 0.2


@dataclass(frozen=True, slots=True)
class Ask:
    """One request and what its client will do."""

    request: pb.GenerateRequest
    key: str
    may: tuple[str, ...]  # codes of errors that it has itself to thank for
    cancel_after: int | None  # messages
    by_id: bool  # by its id, on another call


def draw(rng: random.Random, request_id: str, model: str) -> Ask:
    """Any class, a third of them with a way to end early."""
    key, prompt, max_tokens = rng.choice(PROMPTS[model])
    request = pb.GenerateRequest(
        model=model,
        prompt=prompt,
        request_id=request_id,
        priority=rng.choice(PRIORITIES),
        sampling=pb.Sampling(temperature=0.0),
    )
    if max_tokens:
        request.max_tokens = max_tokens
    may: tuple[str, ...] = REFUSALS
    cancel_after, by_id = None, False
    match rng.randrange(6):
        case 0:
            request.deadline_ms = rng.randrange(20, 3000)
            may += ("deadline",)
        case 1:
            cancel_after, by_id = rng.randrange(8), rng.random() < 0.5
            may += ("cancelled",)
    return Ask(request, key, may, cancel_after, by_id)


class Client(threading.Thread):
    """One after the other."""

    def __init__(
        self, channel: grpc.Channel, fd: int, rng: random.Random, name: str, until_s: float, model: str
    ) -> None:
        super().__init__(name=name)
        self.stub: Any = stubs.InferenceStub(channel)
        self.fd, self.rng, self.until_s, self.model = fd, rng, until_s, model

    def run(self) -> None:
        n_asked = 0
        while time.monotonic() < self.until_s:
            n_asked += 1
            code = self.ask(draw(self.rng, f"{self.name}-{n_asked}", self.model))
            time.sleep(BACK_OFF_S if code else self.rng.expovariate(1 / PAUSE_S))

    def say(self, kind: str, request_id: str, *values: Any) -> None:
        os.write(self.fd, line(kind, request_id, *values))

    def ask(self, ask: Ask) -> str:
        """The code that it ended with."""
        request_id = ask.request.request_id
        self.say("ask", request_id, time.monotonic(), ask.key, ask.may)
        call = self.stub.Generate(ask.request, timeout=LIMIT_S)
        code, n_messages, n_tokens = "none", 0, 0
        try:
            for event in call:
                kind = event.WhichOneof("event")
                if kind == "delta":
                    delta = event.delta
                    n_tokens += len(delta.tokens)
                    self.say("got", request_id, delta.index, list(delta.tokens), delta.text)
                elif kind == "finished":
                    code = DONE
                    self.say("end", request_id, code, event.finished.usage.completion_tokens, time.monotonic())
                n_messages += 1
                if n_messages == ask.cancel_after and code:
                    self.leave(call, ask)
        except grpc.RpcError as error:
            code = from_rpc(error, "", heard=True).code
            self.say("end", request_id, code, n_tokens, time.monotonic())
        return code

    def leave(self, call: Any, ask: Ask) -> None:
        request_id = ask.request.request_id
        self.say("cancelled", request_id)
        if ask.by_id:
            self.stub.Cancel(pb.CancelRequest(request_id=request_id), timeout=LIMIT_S)
        else:
            call.cancel()


def main(address: str, path: str, seed: int, seconds: float, n_threads: int, model: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    until_s = time.monotonic() + seconds
    with dial(address) as channel:
        clients = [
            Client(channel, fd, random.Random(f"{seed} {i}"), f"{seed}-{i}", until_s, model) for i in range(n_threads)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
