"""A Node behind several doors, and clients that come by them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from inferd import AsyncClient, InferdError
from inferd.daemon import listen, main
from inferd.daemon.domain.access import Door, Role
from inferd.daemon.domain.config import Config, Fake, ModelOptions, Models
from inferd.daemon.system.audit import Audit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

    from inferd.daemon.node.node import Node

ENDLESS = "fake:tokens=5000"


@dataclass
class Entrance:
    """`socket`, `admin`, and `needy`, where a token is needed."""

    node: Node
    folder: Path
    audit: Audit
    doors: listen.Doors
    clients: list[AsyncClient] = field(default_factory=list)

    def address(self, door: str) -> str:
        return f"unix:{self.folder}/{door}.sock"

    def dial(self, door: str = "socket", token: str = "", tenant: str | None = None) -> AsyncClient:
        client = AsyncClient(self.address(door), token=token, tenant=tenant)
        self.clients.append(client)
        return client

    async def token(self, role: str, tenant: str = "", ttl_s: float | None = None, name: str = "") -> str:
        made = await self.dial("admin").create_token(name or f"a {role}", role, tenant=tenant, ttl_s=ttl_s)
        return made.token


@asynccontextmanager
async def entrance(folder: Path) -> AsyncIterator[Entrance]:
    config = Config(
        fake=Fake(enabled=True, tokens_per_s=500), models=Models(folders=(str(folder),), defaults=ModelOptions(slots=2))
    )
    node, telemetry = main.build(config)
    audit = Audit(folder / "audit.jsonl")
    roles = {"socket": Role.OPERATOR, "admin": Role.ADMIN, "needy": None}
    ways_in = [Door(name, f"unix:{folder}/{name}.sock", role) for name, role in roles.items()]
    doors = listen.Doors(config, node, telemetry, ways_in, audit)
    it = Entrance(node, folder, audit, doors)
    await doors.open()
    yield it
    for client in it.clients:
        await client.close()
    await node.drain(0.0)
    await doors.close(None)
    telemetry.sensors.close()


async def refused(call: Awaitable[Any]) -> InferdError:
    with pytest.raises(InferdError) as caught:
        await call
    return caught.value
