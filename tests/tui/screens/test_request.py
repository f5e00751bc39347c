from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inferd.protos import inferd_pb2 as pb
from inferd.tests.tui import samples
from inferd.tests.tui.pilots import LARGE, SMALL, monitor, press, text_of, until, watching

if TYPE_CHECKING:
    from inferd.tests.tui.stage import Stage


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_every_decision_about_it(stage: Stage, size: tuple[int, int]) -> None:
    async with watching(stage, size) as pilot:
        await press(pilot, "down", "down", "down", "enter")
        await until(pilot, lambda: "taken in as normal" in text_of(monitor(pilot)), "the decisions")
        text = text_of(monitor(pilot))
        for word in ("r8f2a waits: mistral-7b-q5 needs", "number 1 of 2 in line", "esc back", "x cancel"):
            assert word in text, word


async def test_acting_on_it(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "enter", "p", "2")
        await until(pilot, lambda: stage.did("SetPriority"), "the call")
        assert stage.did("SetPriority")[0].priority == pb.NORMAL
        await press(pilot, "x", "y")
        await until(pilot, lambda: stage.did("Cancel"), "the call")
        await press(pilot, "y")
        assert monitor(pilot).clipboard == "r8f21"
        await press(pilot, "Y")
        assert monitor(pilot).clipboard.startswith("grpcurl")


async def test_when_it_has_ended_what_was_known_stays(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "enter")
        stage.show(samples.snapshot([]))
        await until(pilot, lambda: "it has ended" in text_of(monitor(pilot)), "its end")
        assert "output 412" in text_of(monitor(pilot))


async def test_escape_leads_back(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "2", "enter")
        assert "Waiting 4" in await press(pilot, "escape")
