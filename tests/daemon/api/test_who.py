"""Who asks, as methods see it: said once for each call, and never of another one."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any, cast

import pytest

from inferd.daemon.api import who
from inferd.daemon.domain.access import Door, Principal, Role
from inferd.daemon.domain.errors import Code, InferdError

DOOR = Door("socket", "unix:/x", Role.OPERATOR)
CONTEXT = cast("Any", None)


def test_nobody_is_let_through_where_nobody_was_named() -> None:
    for ask in (who.tenant, who.role, who.only_tenant):
        with pytest.raises(LookupError):
            contextvars.Context().run(ask, CONTEXT)
    assert contextvars.Context().run(who.cut) is None


async def test_each_call_has_its_own() -> None:
    async def call(role: Role, tenant: str) -> tuple[str, str, str | None]:
        who.begin(Principal(role, tenant, "socket"), DOOR)
        await asyncio.sleep(0)
        return who.role(CONTEXT), who.tenant(CONTEXT), who.only_tenant(CONTEXT)

    calls = [asyncio.create_task(call(Role.USER, "a")), asyncio.create_task(call(Role.ADMIN, "b"))]
    assert [await task for task in calls] == [("user", "a", "a"), ("admin", "b", None)]


async def test_why_it_ends_is_told_to_the_call_itself() -> None:
    call = who.begin(Principal(Role.USER, "a", "token", "t1"), DOOR)
    assert who.cut() is None
    call.cut = InferdError(Code.UNAUTHENTICATED, "revoked")
    assert who.cut() is call.cut
