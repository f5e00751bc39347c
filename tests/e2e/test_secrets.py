"""One secret of each kind goes in at every door, and comes out nowhere: not in the log, nor in what is shown."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inferd import Client, InferdError
from inferd.protos import inferd_pb2 as pb
from inferd.protos import inferd_pb2_grpc as stubs
from inferd.tests.e2e.daemons import LIMIT_S, children, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.tests.e2e.daemons import Daemon, Launcher

PROMPT, HUB, WRONG = "canary-of-a-prompt", "hf_canaryOfTheHub", "inferd_canaryOfAGuess"
KEPT = {"jobs.db", "jobs.db-wal"}  # durable jobs are there with their prompts, for their owner alone


@pytest.fixture(scope="module")
def address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"localhost:{taken.getsockname()[1]}"


@pytest.fixture(scope="module")
def records(launcher: Launcher) -> Path:
    return launcher.folder / "records"


@pytest.fixture(scope="module")
def daemon(launcher: Launcher, address: str, records: Path) -> Iterator[Daemon]:
    """One that tells all that it can be made to tell."""
    launcher.environment = {"HF_TOKEN": HUB}
    records.mkdir()
    yield launcher.start(
        f'log_level = "debug"\n[fake]\nenabled = true\n[server]\ntcp_address = "{address}"\n'
        f'[access]\nloopback_role = "none"\n[records]\narrivals_file = "{records}/arrivals.csv"\n'
        f'decisions_file = "{records}/decisions.jsonl"\n',
        name="s",
    )
    launcher.environment = {}


@pytest.fixture(scope="module")
def token(daemon: Daemon, address: str) -> str:
    """It is used, and so are requests with what nobody may see: well, badly, and with a crash."""
    with Client(daemon.address.replace(".sock", "-admin.sock")) as admin:
        made = admin.create_token("laptop", "user").token
    with Client(address, token=made) as client:
        assert client.generate("small", f"fake:tokens=3 {PROMPT}").text()
        assert client.generate("small", f"fake:crash=2 fake:tokens=5 {PROMPT}").text()
        assert client.tokenize("small", PROMPT)
        assert client.stream_job(client.submit_job("small", f"fake:tokens=3 {PROMPT}").id).text()
        with pytest.raises(InferdError):
            client.generate("small", PROMPT, stop=[PROMPT] * 99).text()
        with pytest.raises(InferdError):
            client.generate("small", PROMPT, response_format={"grammar": f"root ::= {PROMPT} {{{{"}).text()
        with pytest.raises(InferdError):
            client.generate("small", [{"role": PROMPT, "content": PROMPT}]).text()
    with Client(address, token=WRONG) as client, pytest.raises(InferdError) as caught:
        client.whoami()
    assert WRONG not in str(caught.value)
    return made


def shown(daemon: Daemon) -> str:
    """All that somebody who looks is told, in words; of every request that is still known, why it was served when."""
    monitor = stubs.MonitorStub(daemon.channel)
    looks = [daemon.snapshot(), monitor.GetSnapshot(pb.GetSnapshotRequest(), timeout=LIMIT_S)]
    told = [str(look) for look in looks] + [str(event) for event in daemon.client.events(follow=False)]
    told += [str(daemon.client.models()), str(daemon.client.jobs())]
    ids = {event.request_id for event in daemon.client.events(follow=False) if event.request_id}
    ids |= {request.id for look in looks for request in look.requests}
    records = [record for request_id in ids for record in daemon.client.explain(request_id)]
    assert records
    return "\n".join([*told, *map(str, records)])


def test_nobody_who_looks_is_shown_a_secret(daemon: Daemon, token: str) -> None:
    stream = daemon.client.generate("small", f"fake:hang=1 {PROMPT}")
    until(lambda: any(state == "running" for state in daemon.live().values()))
    told = shown(daemon)
    stream.cancel()
    assert "crash" in told
    for secret in (PROMPT, HUB, WRONG, token):
        assert secret not in told


def test_the_log_has_none_even_when_it_has_everything(daemon: Daemon, token: str) -> None:
    said = daemon.log.read_text()
    assert " DEBUG " in said
    for secret in (PROMPT, HUB, WRONG, token):
        assert secret not in said


def test_processes_show_none_to_who_lists_them(daemon: Daemon, token: str) -> None:
    below = children(daemon.process.pid)
    assert below
    for pid in (daemon.process.pid, *below):
        assert not any(it.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() for it in (PROMPT, HUB, WRONG, token))
    for pid in below:
        assert HUB.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


def test_files_hold_none_but_the_jobs_of_their_owner(daemon: Daemon, token: str, launcher: Launcher) -> None:
    files = [path for path in launcher.folder.rglob("*") if path.is_file() and path.parent != launcher.models]
    assert {"audit.jsonl", "arrivals.csv", "decisions.jsonl", "tokens.json", "jobs.db"} <= {path.name for path in files}
    for path in files:
        data = path.read_bytes()
        for secret in (PROMPT, HUB, WRONG, token):
            assert secret.encode() not in data or (secret is PROMPT and path.name in KEPT), path
        if path.name in KEPT:
            assert path.stat().st_mode & 0o077 == 0
    (made,) = json.loads(next(path for path in files if path.name == "tokens.json").read_text())["tokens"]
    assert made["name"] == "laptop"
