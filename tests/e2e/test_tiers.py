"""What was computed once is not computed again: not after a crash, an unload or a restart, and by nobody else."""

from __future__ import annotations

import os
import random
import shutil
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from inferd import Client, InferdError
from inferd.tests.e2e.daemons import until
from inferd.tests.models.random_gguf import SHAPES, write_random_gguf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from inferd.tests.e2e.daemons import Daemon, Launcher

pytestmark = pytest.mark.llama

CONFIG = """
[models.defaults]
slots = 2
threads = 1
context_tokens = 1024
keep_alive_s = -1
numerics = "exact"
[scheduler]
min_resident_s = 0.0
"""
N_IN, N_BLOCKS = 400, 6  # whole blocks of 64 before the last token


@pytest.fixture(scope="module")
def tiny(launcher: Launcher) -> Path:
    return write_random_gguf(launcher.models / "tiny.gguf", SHAPES["tiny"])


@pytest.fixture(autouse=True)
def ended(launcher: Launcher) -> Iterator[None]:
    """Each test begins and ends without a daemon."""
    yield
    for daemon in launcher.daemons:
        if daemon.process.poll() is None:
            assert daemon.terminate() == 0


@pytest.fixture
def daemon(launcher: Launcher, tiny: Path) -> Daemon:
    return launcher.start(CONFIG, name="tiers")


def prompt(seed: int) -> list[int]:
    return random.Random(seed).choices(range(500), k=N_IN)


def ask(daemon: Daemon, seed: int, client: Client | None = None, n_out: int = 30) -> tuple[str, int]:
    """(text, cached tokens) of an answer that is drawn."""
    answer = (client or daemon.client).generate(
        "tiny", prompt(seed), max_tokens=n_out, temperature=1.0, seed=seed, ignore_eos=True
    )
    text = answer.text()
    assert answer.usage is not None
    assert answer.usage.completion_tokens == n_out
    return text, answer.usage.cached_tokens


def again(launcher: Launcher, daemon: Daemon, config: str = CONFIG) -> Daemon:
    """The next daemon, after this one was told to end."""
    assert daemon.terminate() == 0
    return launcher.start(config, name="tiers")


def files(launcher: Launcher) -> list[Path]:
    return sorted((launcher.folder / ".cache" / "inferd" / "kv").glob("*.kv"))


def killed(launcher: Launcher, daemon: Daemon) -> Daemon:
    pid = daemon.worker_pid("tiny")
    os.kill(pid, signal.SIGKILL)
    until(lambda: (model := daemon.model("tiny")) is not None and model.pid != pid)
    return daemon


def unloaded(launcher: Launcher, daemon: Daemon) -> Daemon:
    assert daemon.client.unload("tiny")
    until(lambda: (model := daemon.model("tiny")) is not None and model.state == "cold")
    return daemon


@pytest.mark.parametrize(("seed", "what"), [(1, killed), (2, unloaded), (3, again)])
def test_a_prompt_is_computed_once_whatever_happens_in_between(
    launcher: Launcher, daemon: Daemon, seed: int, what: Callable[[Launcher, Daemon], Daemon]
) -> None:
    text, cached = ask(daemon, seed)
    assert cached == 0
    assert ask(what(launcher, daemon), seed) == (text, N_BLOCKS * 64)


def test_batch_work_that_the_end_cuts_off_goes_on_where_it_stopped_when_it_is_asked_for_again(
    launcher: Launcher,
) -> None:
    write_random_gguf(launcher.models / "deep.gguf", replace(SHAPES["tiny"], n_layer=48))
    fast = CONFIG.replace("exact", "fast")
    daemon = launcher.start(fast, name="tiers")
    got: list[int] = []

    def read() -> None:
        for delta in daemon.client.generate(
            "deep", prompt(4), max_tokens=600, temperature=1.0, ignore_eos=True, priority="batch"
        ):
            got.extend(delta.tokens)
            if len(got) == 200:
                daemon.process.send_signal(signal.SIGTERM)

    with pytest.raises(InferdError) as error:
        read()
    assert error.value.code == "shutting_down"
    assert 200 <= len(got) < 600
    assert daemon.process.wait(10) == 0
    answer = launcher.start(fast, name="tiers").client.generate("deep", [*prompt(4), *got], max_tokens=8)
    answer.text()
    assert answer.usage is not None
    assert answer.usage.cached_tokens >= (N_IN + 200) // 64 * 64


def test_what_one_tenant_has_on_disk_no_other_one_gets(launcher: Launcher, daemon: Daemon) -> None:
    text, _ = ask(daemon, 10)
    daemon = again(launcher, daemon)
    with Client(daemon.address, tenant="other") as other:
        assert ask(daemon, 10, other) == (text, 0)
    assert ask(daemon, 10) == (text, N_BLOCKS * 64)


def test_a_byte_that_changed_on_disk_costs_time_and_nothing_else(launcher: Launcher, daemon: Daemon) -> None:
    text, _ = ask(daemon, 20)
    assert daemon.terminate() == 0
    for path in files(launcher):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    daemon = launcher.start(CONFIG, name="tiers")
    assert ask(daemon, 20) == (text, 0)
    assert "its bytes have changed" in daemon.log.read_text()


def test_another_model_of_the_same_name_finds_nothing(launcher: Launcher, daemon: Daemon, tiny: Path) -> None:
    text, _ = ask(daemon, 30)
    assert daemon.terminate() == 0
    shutil.copy(tiny, tiny.with_suffix(".before"))
    write_random_gguf(tiny, replace(SHAPES["tiny"], seed=2))
    try:
        other, cached = ask(launcher.start(CONFIG, name="tiers"), 30)
        assert cached == 0
        assert other != text
    finally:
        tiny.with_suffix(".before").rename(tiny)


def test_other_numerics_find_nothing(launcher: Launcher, daemon: Daemon) -> None:
    ask(daemon, 40)
    daemon = again(launcher, daemon, CONFIG.replace("exact", "fast"))
    assert ask(daemon, 40)[1] == 0


def test_the_disk_keeps_its_quota(launcher: Launcher, daemon: Daemon) -> None:
    quota = 3 * max(path.stat().st_size for path in files(launcher)) if files(launcher) else 400_000
    limited = f"{CONFIG}[cache]\ndisk_bytes = {quota}\n"
    daemon = again(launcher, daemon, limited)
    for seed in range(50, 58):
        ask(daemon, seed)
    daemon = again(launcher, daemon, limited)
    assert 0 < sum(path.stat().st_size for path in files(launcher)) <= quota
    assert ask(daemon, 57)[1] == N_BLOCKS * 64


@pytest.mark.parametrize("folder", ["/proc/inferd", "/dev/null", "/dev/full/x"])
def test_a_disk_that_cannot_be_used_stops_nobody(launcher: Launcher, tiny: Path, folder: str) -> None:
    config = f'{CONFIG}[cache]\nfolder = "{folder}"\n'
    daemon = launcher.start(config, name="tiers")
    text, _ = ask(daemon, 60)
    assert ask(daemon, 60) == (text, N_BLOCKS * 64)
    assert daemon.terminate() == 0
    daemon = launcher.start(config, name="tiers")
    assert ask(daemon, 60) == (text, 0)


def test_without_a_disk_nothing_is_written(launcher: Launcher, tiny: Path) -> None:
    before = files(launcher)
    daemon = launcher.start(f"{CONFIG}[cache]\ndisk_bytes = 0\n", name="tiers")
    ask(daemon, 70)
    assert ask(killed(launcher, daemon), 70)[1] == N_BLOCKS * 64
    assert daemon.terminate() == 0
    assert files(launcher) == before
