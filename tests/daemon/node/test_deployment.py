"""Of several residents the one that is most alive speaks for the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from inferd.daemon.domain.model import ModelState
from inferd.daemon.node.deployment import place_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.tests.daemon.node.house import House


@pytest.mark.parametrize(
    ("first", "second", "speaks"),
    [
        ("COLD", "READY", "READY"),
        ("LOADING", "READY", "READY"),
        ("DRAINING", "LOADING", "LOADING"),
        ("DRAINING", "COLD", "DRAINING"),
        ("FAILED", "COLD", "COLD"),  # it may be loaded elsewhere
        ("FAILED", "FAILED", "FAILED"),
    ],
)
async def test_the_most_alive_one_speaks(
    open_house: Callable[..., House], first: str, second: str, speaks: str
) -> None:
    it = open_house(gpus=2).deployment()
    one, other = it.residents.values()
    one.model.state, other.model.state = ModelState[first], ModelState[second]
    assert (it.state, it.model.state) == (ModelState[speaks], ModelState[speaks])
    one.model.state = other.model.state = ModelState.COLD


async def test_of_equals_the_preferred_one_speaks(open_house: Callable[..., House]) -> None:
    it = open_house(gpus=2).deployment()
    assert it.speaker is it.residents["alpha@gpu0"]
    it.speaker.lost = True
    assert it.speaker is it.residents["alpha@gpu1"]


async def test_who_uses_a_device_is_found(open_house: Callable[..., House]) -> None:
    it = open_house(gpus=2).deployment()
    assert it.on(["gpu1", "gpu7"]) == [it.residents["alpha@gpu1"]]


async def test_the_only_place_has_the_models_name_and_others_tell_their_devices(house: House) -> None:
    plan = house.resident().plan
    assert place_name("m", plan, 1) == "m"
    assert place_name("m", plan, 2) == "m@cpu"
    assert place_name("m", msgspec.structs.replace(plan, devices=("gpu0", "gpu1")), 2) == "m@gpu0+gpu1"
