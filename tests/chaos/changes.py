"""One process of the failpoint run: changes of state, one after the other, each told when it is acknowledged.

`python -m tests.chaos.changes FOLDER` prints "submitted I", "grown I", "ended I", "saved I" and "token I". It is
killed anywhere.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from msgspec.structs import replace

from inferd.backends.messages import FinishReason
from inferd.daemon.domain.access import Role, Token
from inferd.daemon.domain.durable import DurableJob, Entry, Piece, Progress, State
from inferd.daemon.domain.request import Priority
from inferd.daemon.system.state import save_json
from inferd.daemon.system.store import Store
from inferd.daemon.system.tokens import Kept, mint, save

ROUNDS = 6
WORDS = ("one ", "two ", "three ")
SAVED = "aliases"


def main(folder: Path) -> None:
    store = Store(folder)
    store.open()
    tokens: tuple[Token, ...] = ()
    for i in range(ROUNDS):
        job = DurableJob(id=f"j{i}", tenant="t", model="m", priority=Priority.BATCH, created_s=float(i), digest=b"d")
        store.commit([Entry(job, f"request {i}".encode())], [])
        tell("submitted", i)
        some = replace(job, n_tokens=2)
        store.commit([], [Progress(some, 0, (piece(0, WORDS[:2]),))])
        tell("grown", i)
        end = replace(some, n_tokens=3, state=State.DONE, ended_s=time.time(), finish_reason=FinishReason.STOP)
        store.commit([], [Progress(end, 2, (piece(2, WORDS[2:]),))])
        tell("ended", i)
        if save_json(SAVED, {"n": i}, folder):
            tell("saved", i)
        tokens += (mint(f"name{i}", Role.USER, "t", float(i), None)[1],)
        if save(Kept(tokens=tokens), folder):
            tell("token", i)


def piece(index: int, words: tuple[str, ...]) -> Piece:
    return Piece(index, list(range(index, index + len(words))), [len(word) for word in words], "".join(words))


def tell(what: str, i: int) -> None:
    os.write(1, f"{what} {i}\n".encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
