"""Houses for the tests of this folder; each one is searched for leftovers at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from inferd.tests.daemon.node.house import House, build

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, gguf: Any) -> Path:
    """Two models whose vocabulary holds every byte."""
    path = tmp_path / "models"
    path.mkdir()
    for name in ("alpha", "beta"):
        (path / f"{name}.gguf").write_bytes(gguf.small(n_vocab=512).build())
    return path


@pytest.fixture
async def open_house(folder: Path) -> AsyncIterator[Callable[..., House]]:
    """Makes a house with the given config; see `build`."""
    houses: list[House] = []

    def open_one(**config: Any) -> House:
        houses.append(build(folder, **config))
        return houses[-1]

    yield open_one
    for house in houses:
        await house.close()


@pytest.fixture
async def house(open_house: Callable[..., House]) -> House:
    """As fast as it can."""
    return open_house()


@pytest.fixture
async def slow_house(open_house: Callable[..., House]) -> House:
    """Slow enough for a test to look while it works."""
    return open_house(tokens_per_s=100.0)
