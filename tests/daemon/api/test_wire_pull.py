"""Pulls and aliases at the door."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from inferd.daemon.api.wire_pull import to_order, to_progress
from inferd.daemon.domain.config import Hub
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.pull import PullOrder, PullProgress, PullState
from inferd.protos import inferd_pb2 as pb
from inferd.tests.daemon.api.house import WAIT_S, House, refused
from inferd.tests.hub import Repo, StandIn

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the house is built."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))


def test_an_order_has_what_was_asked() -> None:
    wire = pb.PullModelRequest(repo="a/b", file="c.gguf", revision="v1", name="n", sha256="AB" * 32)
    assert to_order(wire) == PullOrder("a/b", "c.gguf", "v1", "n", "ab" * 32)
    assert to_order(pb.PullModelRequest(repo="a/b")) == PullOrder("a/b", revision="main")


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        (pb.PullModelRequest(), "repo"),
        (pb.PullModelRequest(repo="http://169.254.169.254/x"), "repo"),
        (pb.PullModelRequest(repo="a/b", file="../c.gguf"), "file"),
        (pb.PullModelRequest(repo="a/b", revision="../x"), "revision"),
        (pb.PullModelRequest(repo="a/b", sha256="x"), "sha256"),
    ],
)
def test_a_wrong_field_is_named(wire: pb.PullModelRequest, field: str) -> None:
    with pytest.raises(InferdError) as caught:
        to_order(wire)
    assert (caught.value.code, caught.value.field) == (Code.INVALID, field)


def test_progress_is_passed_on_field_for_field() -> None:
    wire = to_progress(PullProgress(PullState.FETCHING, 1, 2, 3.5, "m", "ab", "f", "w"))
    assert [value for _, value in wire.ListFields()] == ["fetching", 1, 2, 3.5, "m", "ab", "f", "w"]
    assert len(wire.ListFields()) == len(pb.PullProgress.DESCRIPTOR.fields)


async def test_a_model_is_pulled_and_served(house: House, folder: Path) -> None:
    with StandIn() as hub:
        hub.repos["owner/name"] = Repo({"Other.gguf": (folder / "small.gguf").read_bytes()})
        models = msgspec.structs.replace(house.node.config.models, pull_min_free_bytes=0)
        changed = {"models": models, "hub": Hub(endpoint=hub.endpoint)}
        house.node.config = msgspec.structs.replace(house.node.config, **changed)
        call = house.models.PullModel(pb.PullModelRequest(repo="owner/name"), timeout=WAIT_S)
        told = [progress async for progress in call]
    assert (told[0].state, told[-1].state, told[-1].model) == ("resolving", "ready", "other")
    assert (await house.generate(model="other"))[-1].finished.usage.completion_tokens == 3


async def test_another_name_is_given_shown_and_used(house: House) -> None:
    answer = await house.models.SetAlias(pb.SetAliasRequest(alias="mine", model="small"))
    assert answer.previous_model == ""
    rows = (await house.models.ListModels(pb.ListModelsRequest())).models
    assert {row.name: list(row.aliases) for row in rows}["small"] == ["mine"]
    events = await house.generate(model="mine")
    assert [event.started.model for event in events if event.HasField("started")] == ["small"]
    error = await refused(house.models.SetAlias(pb.SetAliasRequest(alias="small", model="broken")))
    assert (error.code, error.field) == (Code.INVALID, "alias")
    answer = await house.models.SetAlias(pb.SetAliasRequest(alias="mine"))
    assert answer.previous_model == "small"
