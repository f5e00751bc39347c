"""A machine with two GPUs, of which one falls off the bus: a real daemon, real workers, a false driver library."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from inferd.tests.e2e.daemons import Launcher, until
from inferd.tests.machines import BASE, MACHINES, build_nvml, write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.tests.e2e.daemons import Daemon

CONFIG = """
[fake]
enabled = true
tokens_per_s = 200
[models.defaults]
slots = 2
replicas = 2
"""
LOST = 15  # NVML_ERROR_GPU_IS_LOST
N_TOKENS = 500  # so many that they still come when the loss is noticed


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """What the driver library says."""
    path = tmp_path / "world"
    path.write_text("gpus 2\n")
    return path


@pytest.fixture
def daemon(world: Path, tmp_path: Path, gguf: Any) -> Iterator[Daemon]:
    """One that has found both GPUs."""
    root, library = tmp_path / "root", tmp_path / "library"
    library.mkdir()
    with tempfile.TemporaryDirectory(prefix="inferd-") as folder:
        launcher = Launcher(Path(folder))
        launcher.environment = {
            "INFERD_SYSROOT": str(write_tree(root, {**BASE, **MACHINES["two_nvidia"]})),
            "LD_LIBRARY_PATH": str(build_nvml(library)),
            "FAKE_NVML": str(world),
        }
        launcher.models.mkdir()
        (launcher.models / "small.gguf").write_bytes(gguf.small(n_vocab=512).build())
        try:
            daemon = launcher.start(CONFIG)
            until(lambda: list(daemon.client.plan("small").devices) == ["gpu0"])
            yield daemon
        finally:
            launcher.close()


def say(daemon: Daemon, n: int, **options: Any) -> Any:
    prompt = [ord(char) for char in f"fake:tokens={N_TOKENS} {n}"]
    return daemon.client.generate("small", prompt, seed=1, **options)


def devices(daemon: Daemon) -> list[str]:
    """Of the workers, with what they run."""
    rows = [row for row in daemon.snapshot().models if row.state == "ready"]
    return [f"{', '.join(row.devices)}: {row.running}" for row in rows]


def test_a_lost_gpu_costs_nobody_a_token(daemon: Daemon, world: Path) -> None:
    answers = [say(daemon, n, request_id=f"r{n}") for n in range(4)]
    until(lambda: devices(daemon) == ["gpu0: 2", "gpu1: 2"])
    assert len({row.pid for row in daemon.snapshot().models}) == 2
    assert "route" in {record.kind for record in daemon.client.explain("r3")}

    world.write_text(f"gpus 2\ngpu 0 {LOST}\n")
    took_s = until(lambda: devices(daemon) == ["gpu1: 2"])
    assert took_s < 2.5
    states = {device.id: device.state for device in daemon.snapshot().devices}
    assert (states["gpu0"], states["gpu1"]) == ("lost", "ok")

    moved = [answer.text() for answer in answers]
    assert [answer.usage.completion_tokens for answer in answers] == [N_TOKENS] * 4
    assert sorted(answer.resumed for answer in answers) == [0, 0, 1, 1]
    assert daemon.snapshot().rates.wasted_tokens_total["device_lost"] > 0
    again = [say(daemon, n) for n in range(2)]  # by the worker that is left
    assert [answer.text() for answer in again] == moved[:2]
    assert devices(daemon)[0].startswith("gpu1")
    assert list(daemon.client.plan("small").devices) == ["gpu1"]
