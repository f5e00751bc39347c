from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from inferd import InferdError
from inferd.protos import inferd_pb2 as pb
from inferd.tui import explanations
from inferd.tui.explanations import KEPT, Explanations

if TYPE_CHECKING:
    from collections.abc import Sequence


class Asked:
    def __init__(self) -> None:
        self.ids: list[str] = []
        self.fails = False
        self.news = asyncio.Event()

    async def ask(self, request_id: str) -> Sequence[pb.DecisionRecord]:
        self.ids.append(request_id)
        if self.fails:
            raise InferdError("not_found", "nothing is remembered of it")
        return [pb.DecisionRecord(summary=f"{request_id} waits")]

    async def next(self) -> None:
        await asyncio.wait_for(self.news.wait(), 5)
        self.news.clear()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setattr(explanations, "REST_S", 0.02)
    return Asked()


def of(asked: Asked) -> Explanations:
    return Explanations(asked.ask, asked.news.set)


async def test_who_is_looked_at_is_explained(asked: Asked) -> None:
    known = of(asked)
    assert known.get("r1") == ()
    await asked.next()
    assert [record.summary for record in known.get("r1")] == ["r1 waits"]


async def test_a_cursor_that_runs_past_asks_for_nothing(asked: Asked) -> None:
    known = of(asked)
    for name in ("r1", "r2", "r3"):
        known.want(name)
    await asked.next()
    assert asked.ids == ["r3"]


async def test_what_is_old_and_looked_at_is_asked_for_again(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanations, "AGAIN_S", 0.0)
    known = of(asked)
    known.want("r1")
    await asked.next()
    known.get("r1")
    await asked.next()
    assert asked.ids == ["r1", "r1"]
    monkeypatch.setattr(explanations, "AGAIN_S", 60.0)
    known.get("r1")
    assert asked.ids == ["r1", "r1"]


async def test_what_was_known_stays_when_the_daemon_has_forgotten_it(asked: Asked) -> None:
    known = of(asked)
    known.want("r1")
    await asked.next()
    asked.fails = True
    known.want("r1")
    await asked.next()
    assert len(known.get("r1")) == 1


async def test_only_the_last_ones_are_kept(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanations, "REST_S", 0.0)
    known = of(asked)
    for i in range(KEPT + 3):
        known.want(f"r{i}")
        await asked.next()
    assert "r0" not in known._known
    assert len(known.get(f"r{KEPT + 2}")) == 1
