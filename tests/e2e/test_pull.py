"""A model from the hub, through the real daemon to its first token; what cuts, kills and lies do to that."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import inferd
from inferd import InferdError
from inferd.tests.e2e.daemons import alive, children, environment, until
from inferd.tests.hub import Fault, Repo, StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.tests.e2e.daemons import Daemon, Launcher

RAW = (Path(inferd.__file__).parent / "backends" / "llama" / "demo.gguf").read_bytes()
FILE = "Demo.Q8_0.gguf"
HALF = len(RAW) // 2
LIMIT_S = 60.0


@pytest.fixture
def hub() -> Iterator[StandIn]:
    with StandIn() as hub:
        hub.repos["owner/name"] = Repo({FILE: RAW})
        yield hub


def config(hub: StandIn, folder: Path) -> str:
    models = f'[models]\npull_folder = "{folder}"\npull_min_free_bytes = 0\n'
    return f'{models}[models.defaults]\nthreads = 1\n[hub]\nendpoint = "{hub.endpoint}"\n'


def inferd_cli(daemon: Daemon, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inferd.daemon.cli.app", *arguments, "--address", daemon.address]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, env=environment(home), check=False)


@pytest.mark.llama
def test_from_a_repository_to_a_token_with_a_cut_in_between(launcher: Launcher, hub: StandIn, tmp_path: Path) -> None:
    hub.plant(FILE, Fault(cut_after=HALF), Fault(status=503, retry_after="0"))
    daemon = launcher.start(config(hub, tmp_path / "pulled"), name="pull")
    done = inferd_cli(daemon, tmp_path, "pull", "owner/name", "--name", "mine", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["model"], told["sha256"]) == ("mine", hashlib.sha256(RAW).hexdigest())
    assert [headers.get("range") for headers in hub.gets(FILE)] == [None, *[f"bytes={HALF}-"] * 2]
    assert (tmp_path / "pulled" / "mine" / FILE).read_bytes() == RAW
    assert inferd_cli(daemon, tmp_path, "alias", "nickname", "mine").returncode == 0
    answer = daemon.client.generate("nickname", "hello", max_tokens=8, temperature=0)
    assert answer.text() == daemon.client.generate("demo", "hello", max_tokens=8, temperature=0).text()
    assert "nickname" in inferd_cli(daemon, tmp_path, "models").stdout
    kinds = [event.kind for event in daemon.client.events(follow=False)]
    assert kinds.count("model_pulled") == kinds.count("alias") == 1


def test_a_pull_outlives_the_daemon_that_was_killed(launcher: Launcher, hub: StandIn, tmp_path: Path) -> None:
    fault = Fault(hold_after=HALF)
    hub.plant(FILE, fault)
    text = config(hub, tmp_path / "pulled")
    daemon = launcher.start(text, "--fake", name="killed")
    watcher = threading.Thread(target=watch, args=(daemon,))
    watcher.start()
    assert fault.held.wait(LIMIT_S)
    part = tmp_path / "pulled" / ".pulls" / hashlib.sha256(RAW).hexdigest()
    until(lambda: part.stat().st_size >= HALF // 2)
    below = children(daemon.process.pid)
    assert below
    os.kill(daemon.process.pid, signal.SIGKILL)
    daemon.process.wait(LIMIT_S)
    watcher.join(LIMIT_S)
    until(lambda: not any(map(alive, below)))
    launcher.daemons.remove(daemon)
    daemon.close()
    n_kept = part.stat().st_size
    again = launcher.start(text, "--fake", name="killed")
    last = again.client.pull("owner/name").wait()
    assert last is not None
    assert (last.state, last.model) == ("ready", "demo.q8_0")
    assert hub.gets(FILE)[-1]["range"] == f"bytes={n_kept}-"
    assert again.client.generate(last.model, "hello", max_tokens=2).text()


def watch(daemon: Daemon) -> None:
    with pytest.raises(InferdError):
        daemon.client.pull("owner/name").wait()


def test_whoever_hangs_up_stops_it(launcher: Launcher, hub: StandIn, tmp_path: Path) -> None:
    fault = Fault(hold_after=HALF)
    hub.plant(FILE, fault)
    daemon = launcher.start(config(hub, tmp_path / "pulled"), "--fake", name="left")
    with daemon.client.pull("owner/name") as progress:
        reports = iter(progress)
        while next(reports).state != "fetching":
            pass
        assert children(daemon.process.pid)
        assert fault.held.wait(LIMIT_S)
    assert until(lambda: not children(daemon.process.pid)) < 2.0
    assert "pull_failed" not in [event.kind for event in daemon.client.events(follow=False)]


def test_wrong_bytes_are_refused_and_no_path_is_told(launcher: Launcher, hub: StandIn, tmp_path: Path) -> None:
    hub.plant(FILE, Fault(flip=True))
    daemon = launcher.start(config(hub, tmp_path / "pulled"), "--fake", name="wrong")
    done = inferd_cli(daemon, tmp_path, "pull", "owner/name")
    assert done.returncode == 5
    assert "were removed" in done.stderr
    assert str(tmp_path) not in done.stderr
    assert list((tmp_path / "pulled").rglob("*.gguf")) == []
    assert inferd_cli(daemon, tmp_path, "pull", "owner/none").returncode == 4
    assert inferd_cli(daemon, tmp_path, "pull", "../owner/name").returncode == 2
