from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from inferd import AsyncClient, InferdError
from inferd.protos import inferd_pb2 as pb
from inferd.tui.actions import Operator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from inferd.tests.tui.stage import Stage


@pytest.fixture
async def operator(stage: Stage) -> AsyncIterator[Operator]:
    async with AsyncClient(stage.address) as client:
        yield Operator(client)


async def test_cancelling_one(stage: Stage, operator: Operator) -> None:
    assert await operator.cancel(["r8f21"]) == "r8f21 is cancelled"
    assert await operator.cancel(["gone"]) == "gone is not live any more"
    assert [request.request_id for request in stage.did("Cancel")] == ["r8f21", "gone"]


async def test_cancelling_several_of_which_some_have_ended(operator: Operator) -> None:
    assert await operator.cancel(["r8f21", "r8f1e"]) == "2 requests are cancelled"
    assert await operator.cancel(["r8f21", "gone", "gone too"]) == "1 requests are cancelled; 2 had ended"


async def test_changing_the_class(stage: Stage, operator: Operator) -> None:
    assert await operator.set_priority(["r8f2a"], "interactive") == "r8f2a is now interactive"
    assert stage.did("SetPriority")[0].priority == pb.INTERACTIVE


async def test_loading_tells_where_and_how_long_it_took(operator: Operator) -> None:
    assert await operator.load("tiny-cold") == "tiny-cold is ready on gpu0 after 1.4s"


@pytest.mark.parametrize("force", [False, True])
async def test_unloading(stage: Stage, operator: Operator, force: bool) -> None:
    assert await operator.unload("embed-e5", force=force) == "embed-e5 is unloaded"
    assert stage.did("UnloadModel")[0].force is force


async def test_pinning_and_letting_go(stage: Stage, operator: Operator) -> None:
    assert "stays" in await operator.pin("embed-e5", True)
    assert "may go" in await operator.pin("embed-e5", False)
    assert [request.pinned for request in stage.did("Pin")] == [True, False]


async def test_draining_and_serving_again(stage: Stage, operator: Operator) -> None:
    assert (await operator.drain(True)).startswith("draining")
    assert (await operator.drain(False)).startswith("serving")
    assert [request.draining for request in stage.did("Drain")] == [True, False]


async def test_a_refusal_is_the_daemons_own_sentence(stage: Stage, operator: Operator) -> None:
    stage.refusal = (grpc.StatusCode.PERMISSION_DENIED, "viewers may not unload")
    with pytest.raises(InferdError, match="viewers may not unload"):
        await operator.unload("embed-e5", force=False)
