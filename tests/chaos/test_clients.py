"""The recorder against a real daemon whose engine lies on order: every lie is caught, and the truth is none."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from inferd.protos import inferd_pb2 as pb
from inferd.tests.chaos import truths
from inferd.tests.chaos.clients import REFUSALS, Ask, Client, draw
from inferd.tests.chaos.history import faults, read
from inferd.tests.chaos.house import daemon, small_gguf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from inferd.tests.e2e.daemons import Daemon

CONFIG = "[fake]\nenabled = true\ntokens_per_s = 200\n[models.defaults]\nslots = 16\n"


@pytest.fixture(scope="module")
def lying() -> Iterator[Daemon]:
    with daemon(CONFIG, {"small": small_gguf()}) as (one, _):
        yield one


def heard(one: Daemon, folder: Path, prompt: str, deadline_ms: int = 60_000) -> list[str]:
    """The faults of one request's history."""
    request = pb.GenerateRequest(model="small", prompt=prompt, request_id="r", deadline_ms=deadline_ms)
    request.sampling.temperature = 0.0
    with (folder / "seen").open("wb", buffering=0) as file:
        client = Client(one.channel, file.fileno(), random.Random(1), "c", 0.0, "small")
        client.ask(Ask(request, "k", (), None, False))
    with (folder / "seen").open("rb") as lines:
        history = read(lines)["r"]
    return faults(history, truths.of_fake(prompt))


@pytest.mark.parametrize(
    ("lie", "fault"),
    [
        ("repeat", "the end says 9"),
        ("skip", "the end says 9"),
        ("swap", "wrong tokens"),
        ("garble", "the text is not what the tokens spell"),
        ("halt", "it ended with deadline"),
    ],
)
def test_a_lie_of_the_engine_is_caught(lying: Daemon, tmp_path: Path, lie: str, fault: str) -> None:
    deadline_ms = 1000 if lie == "halt" else 60_000
    found = heard(lying, tmp_path, f"fake:tokens=9 fake:{lie}=4", deadline_ms)
    assert any(fault in one for one in found), found


def test_the_truth_is_no_lie_and_a_crash_on_the_way_changes_nothing(lying: Daemon, tmp_path: Path) -> None:
    assert heard(lying, tmp_path, "fake:tokens=9") == []
    assert heard(lying, tmp_path, "fake:tokens=30 fake:crash=12") == []


def test_the_same_seed_asks_the_same_and_not_the_same_twice() -> None:
    def drawn(seed: int) -> list[Ask]:
        rng = random.Random(seed)
        return [draw(rng, "r", "small") for _ in range(50)]

    assert drawn(3) == drawn(3) != drawn(4)
    assert {ask.may for ask in drawn(3)} == {REFUSALS, (*REFUSALS, "deadline"), (*REFUSALS, "cancelled")}
