"""A shared machine, seen from outside: a socket, its admins, and TCP with TLS for who has a token."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from inferd import Client, InferdError
from inferd.tests.certificates import Authority, needs_openssl
from inferd.tests.e2e.conftest import CONFIG
from inferd.tests.e2e.daemons import LIMIT_S, command, environment, until

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.tests.e2e.daemons import Daemon, Launcher


def listening(pid: int) -> set[str]:
    """`host:port` in hex of every TCP socket of a process that waits for connections."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    found = set()
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}") as lines:
            rows = [line.split() for line in lines][1:]
        found |= {row[1] for row in rows if row[3] == "0A" and row[9] in inodes}
    return found


def admin(daemon: Daemon) -> Client:
    return Client(daemon.address.replace(".sock", "-admin.sock"))


def test_by_default_nothing_listens_on_tcp_and_admins_are_its_owner(daemon: Daemon) -> None:
    assert listening(daemon.process.pid) == set()
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660
    beside = daemon.socket.with_name("d-admin.sock")
    assert stat.S_IMODE(beside.stat().st_mode) == 0o600
    assert daemon.client.whoami().role == "operator"
    with admin(daemon) as client:
        assert client.whoami().role == "admin"


@pytest.fixture
def address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"localhost:{taken.getsockname()[1]}"


def test_tokens_outlive_the_daemon_and_its_death(launcher: Launcher, address: str) -> None:
    config = f'{CONFIG}[server]\ntcp_address = "{address}"\n[access]\nloopback_role = "none"\n'
    daemon = launcher.start(config, name="t")
    assert len(listening(daemon.process.pid)) >= 1
    with admin(daemon) as client:
        kept, gone = (client.create_token(name, "user", tenant="team").token for name in ("kept", "gone"))
        assert client.revoke_token("gone")
    audit = launcher.folder / "t.state" / "inferd" / "audit.jsonl"
    until(lambda: "RevokeToken" in audit.read_text())  # which is written beside the answer
    daemon.close()
    daemon.process.send_signal(signal.SIGKILL)
    daemon.process.wait(LIMIT_S)
    launcher.daemons.remove(daemon)
    daemon = launcher.start(config, name="t")
    with Client(address, token=kept) as client:
        assert (client.whoami().role, client.whoami().tenant) == ("user", "team")
        assert client.generate("small", "fake:tokens=3").text()
    for token in (gone, ""):
        with Client(address, token=token) as client, pytest.raises(InferdError) as caught:
            client.whoami()
        assert caught.value.code == "unauthenticated"
    methods = [json.loads(line)["method"] for line in audit.read_text().splitlines()]
    assert methods[-3:] == ["CreateToken", "CreateToken", "RevokeToken"]
    secrets = [token.rpartition("_")[2] for token in (kept, gone)]
    for path in (daemon.log, audit, audit.with_name("tokens.json")):
        assert not [secret for secret in secrets if secret in path.read_text()], path


@needs_openssl
def test_another_machine_reaches_it_over_tls_with_a_token(
    launcher: Launcher, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = Authority(tmp_path, "ca")
    pair = ca.issue("daemon")
    port = address.rpartition(":")[2]
    tls = f'[server.tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n'
    daemon = launcher.start(f'{CONFIG}[server]\ntcp_address = "0.0.0.0:{port}"\n{tls}', name="s")
    with admin(daemon) as client:
        token = client.create_token("laptop", "user").token
    monkeypatch.setenv("INFERD_CA", str(ca.certificate))
    with Client(f"tls:{address}", token=token) as client:
        assert client.generate("small", "fake:tokens=3").text()
    with Client(f"tls:{address}", token="") as client, pytest.raises(InferdError) as caught:
        client.whoami()
    assert caught.value.code == "unauthenticated"
    variables = {**environment(tmp_path), "INFERD_CA": str(ca.certificate), "INFERD_TOKEN": token}
    verb = [*command()[:-1], "whoami", "--address", f"tls:{address}", "--json"]
    done = subprocess.run(verb, env=variables, capture_output=True, text=True, check=True, timeout=LIMIT_S)
    assert json.loads(done.stdout) == {"tenant": "laptop", "role": "user"}


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:50051", "example.org:50051", "[::ffff:10.0.0.1]:50051"])
def test_what_others_can_reach_needs_tls(launcher: Launcher, tmp_path: Path, address: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[server]\naddress = "{tmp_path}/d.sock"\ntcp_address = "{address}"\n')
    arguments: Any = command("--config", config)
    done = subprocess.run(arguments, env=environment(tmp_path), capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 78
    for setting in ("server.tcp_address", "server.tls.certificate", "server.tls.key"):
        assert setting in done.stderr
