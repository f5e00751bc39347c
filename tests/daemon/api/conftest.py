"""A house for the tests of the doors."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from inferd.daemon import listen, main
from inferd.daemon.domain.access import Door, Role
from inferd.daemon.domain.config import Config, Fake, ModelOptions, Models, Queue
from inferd.tests.daemon.api.house import House

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def folder(gguf: Any) -> Iterator[Path]:
    # A socket's path has at most 107 bytes: pytest's own folders can be longer.
    with tempfile.TemporaryDirectory(prefix="inferd-") as name:
        (Path(name) / "small.gguf").write_bytes(gguf.small(n_vocab=512).build())
        (Path(name) / "broken.gguf").write_bytes(b"GGUF")
        yield Path(name)


@pytest.fixture
async def house(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    config = Config(
        fake=Fake(enabled=True, tokens_per_s=500),
        models=Models(folders=(str(folder),), defaults=ModelOptions(slots=2)),
        queue=Queue(max_requests=3),
    )
    monkeypatch.setenv("STATE_DIRECTORY", str(folder / "state"))
    node, telemetry = main.build(config)
    address = f"unix:{folder}/d.sock"
    doors = listen.Doors(config, node, telemetry, [Door("socket", address, Role.OPERATOR)])
    await doors.open()
    options = [("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield House(node, channel)
    await node.drain(0.0)
    await doors.close(None)
    telemetry.sensors.close()
