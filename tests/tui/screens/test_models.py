from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from inferd.protos import inferd_pb2 as pb
from inferd.tests.tui.pilots import LARGE, SMALL, monitor, press, text_of, told, until, watching

if TYPE_CHECKING:
    from inferd.tests.tui.stage import Stage


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_what_is_loaded_and_what_could_be(stage: Stage, size: tuple[int, int]) -> None:
    async with watching(stage, size) as pilot:
        text = await press(pilot, "3")
        for word in ("embed-e5", "● ready", "pinned", "tiny-cold", "✗ failed", "Models 7"):
            assert word in text, word
        text = await press(pilot, "down", "down")
        assert "qwen2 Q4_K_M" in text
        assert "13,045 used" in text


async def test_a_load_shows_its_plan_first(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "3", "end", "l")
        await until(pilot, lambda: "Load tiny-cold?" in text_of(monitor(pilot)), "the question")
        assert "qwen2.5-7b-q4 would make way" in text_of(monitor(pilot))
        await press(pilot, "n")
        assert stage.did("LoadModel") == []
        await press(pilot, "l")
        await until(pilot, lambda: "Load tiny-cold?" in text_of(monitor(pilot)), "the question")
        await press(pilot, "y")
        await until(pilot, lambda: "ready on gpu0 after 1.4s" in told(pilot), "the answer")
        assert stage.did("LoadModel")[0].model == "tiny-cold"


async def test_what_is_loaded_already_is_not_asked_for(stage: Stage) -> None:
    stage.plan = pb.PlanLoadResponse(outcome="loaded")
    async with watching(stage) as pilot:
        await press(pilot, "3", "l")
        await until(pilot, lambda: "is loaded already" in told(pilot), "the answer")
        assert stage.did("LoadModel") == []


@pytest.mark.parametrize(("key", "force"), [("u", False), ("e", True)])
async def test_unloading_asks_once(stage: Stage, key: str, force: bool) -> None:
    async with watching(stage) as pilot:
        text = await press(pilot, "3", key)
        assert ("Cut off 2 running and unload embed-e5 now?" if force else "Unload embed-e5 after 2 running?") in text
        await press(pilot, "n")
        assert stage.did("UnloadModel") == []
        await press(pilot, key, "y")
        await until(pilot, lambda: stage.did("UnloadModel"), "the call")
        assert (stage.did("UnloadModel")[0].model, stage.did("UnloadModel")[0].force) == ("embed-e5", force)


async def test_a_model_that_is_not_there_cannot_be_unloaded(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "3", "end", "u")
        assert "Unload" not in text_of(monitor(pilot))


async def test_pinning_turns_over(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "3", "i", "down", "i")
        await until(pilot, lambda: len(stage.did("Pin")) == 2, "both calls")
        assert {request.model: request.pinned for request in stage.did("Pin")} == {
            "embed-e5": True,
            "llama3-70b-q4": False,
        }


async def test_what_the_daemon_refuses_is_said(stage: Stage) -> None:
    stage.refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "the daemon is draining")
    async with watching(stage) as pilot:
        await press(pilot, "3", "i")
        await until(pilot, lambda: "the daemon is draining" in told(pilot), "the complaint")


async def test_its_name_is_copied(stage: Stage) -> None:
    async with watching(stage) as pilot:
        await press(pilot, "3", "y")
        assert monitor(pilot).clipboard == "embed-e5"


async def test_the_catalog_is_read_anew_when_one_looks(stage: Stage) -> None:
    async with watching(stage) as pilot:
        stage.catalog.append(pb.ModelInfo(name="new-here", state="cold"))
        await press(pilot, "3")
        await until(pilot, lambda: "new-here" in text_of(monitor(pilot)), "the new file")
