"""Draining and reading the config again, as they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferd.daemon.domain.errors import Code
from inferd.protos import inferd_pb2 as pb
from inferd.tests.daemon.api.house import refused

if TYPE_CHECKING:
    from inferd.tests.daemon.api.house import House


async def test_it_drains_unless_it_is_said_otherwise(house: House) -> None:
    for asked, was in ((None, False), (True, True), (False, True), (False, False)):
        answer = await house.admin.Drain(pb.DrainRequest(draining=asked))
        assert answer.was_draining is was
        assert house.node.draining is (asked is not False)


async def test_who_comes_meanwhile_is_refused_and_afterwards_served(house: House) -> None:
    await house.admin.Drain(pb.DrainRequest())
    error = await refused(house.generate())
    assert error.code is Code.DRAINING
    assert (await house.inference.Tokenize(pb.TokenizeRequest(model="small", prompt="a"))).tokens == [97]
    await house.admin.Drain(pb.DrainRequest(draining=False))
    assert (await house.generate())[-1].HasField("finished")


async def test_the_config_is_read_again(house: House) -> None:
    answer = await house.admin.Reload(pb.ReloadRequest())
    assert (list(answer.changed), list(answer.needs_restart)) == ([], [])


async def test_where_there_is_none_to_read_that_is_said(house: House) -> None:
    house.node.reload = None
    assert (await refused(house.admin.Reload(pb.ReloadRequest()))).code is Code.UNSUPPORTED
