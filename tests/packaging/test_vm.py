"""The package on a kernel of its own: what each worker may take, what becomes of one that takes more, and clocks.

`make deb-vm-test`, as root; minutes, as the machine is emulated. One story, told in the order of the file. Models run
on the fake engine: what llama.cpp was compiled for may be more than the emulated processor is.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from inferd.tests.e2e.daemons import until
from inferd.tests.packaging import vm as vms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.tests.packaging.vm import Vm

ROOT = Path(__file__).parents[2]
SERVICE = "/sys/fs/cgroup/inferd.slice/inferd.service"
CONFIG = """
[fake]
enabled = true
tokens_per_s = 20.0
[workers]
sandbox = "required"
"""
SAID = "fake:tokens=600"  # for half a minute
LIMIT_S = 240.0
YEAR_S = 365 * 86_400

if not os.environ.get("INFERD_VM"):
    pytest.skip("boots an emulated machine and installs the package there: make deb-vm-test", allow_module_level=True)
if reason := vms.missing():
    pytest.skip(reason, allow_module_level=True)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    found = sorted((ROOT / "build" / "deb").glob("inferd_*-1_*.deb"), key=lambda path: path.stat().st_mtime)
    if not found:
        pytest.fail("there is no package in build/deb: make deb")
    folder = tmp_path_factory.mktemp("machine")
    with vms.Vm(vms.rootfs(sys.version_info.minor), found[-1], folder) as booted:
        yield booted
    shutil.rmtree(folder)


def read(machine: Vm, path: str) -> str:
    return machine.run("cat", path)


def groups(machine: Vm) -> dict[str, list[str]]:
    """Pids by the name of the group that they are in."""
    script = f'cd {SERVICE} && for group in */; do echo "${{group%/}}" $(cat "$group/cgroup.procs"); done'
    rows = [line.split() for line in machine.run("sh", "-c", script).splitlines()]
    return {row[0]: row[1:] for row in rows}


def worker(machine: Vm) -> tuple[str, str]:
    """The group of the model's worker, and its pid."""
    return next((name, pids[0]) for name, pids in groups(machine).items() if name.startswith("w-demo") and pids)


class Stream:
    """An answer that somebody waits for, in the background."""

    def __init__(self, machine: Vm, name: str) -> None:
        self.machine, self.name = machine, name
        command = ["systemd-run", "-q", f"--unit={name}", "--uid=alice", "-p", f"StandardOutput=file:/tmp/{name}"]
        machine.run(*command, "-p", "StandardError=journal", "inferd", "run", "demo", SAID, "--seed", "7", "--json")
        until(lambda: "1 requests running" in machine.property("StatusText"), LIMIT_S)

    def answer(self) -> dict[str, Any]:
        """Once it has ended."""
        state = ("systemctl", "show", self.name, "--value", "--property=ActiveState")
        until(lambda: self.machine.run(*state) in ("inactive", "failed"), LIMIT_S)
        text = read(self.machine, f"/tmp/{self.name}")
        assert text, self.machine.run("journalctl", "-u", self.name, "--no-pager") + self.machine.journal()
        answer: dict[str, Any] = json.loads(text)
        return answer


@pytest.fixture(scope="module")
def undisturbed(machine: Vm) -> str:
    """What the model answers when nothing happens."""
    return str(Stream(machine, "undisturbed").answer()["text"])


def test_an_installation_serves(machine: Vm) -> None:
    assert machine.run("uname", "-r")
    machine.run("dpkg", "-i", "/root/inferd.deb")
    assert machine.run("systemctl", "is-active", "inferd") == "active"
    machine.run("useradd", "-m", "-G", "inferd", "alice")
    machine.run("useradd", "-m", "-G", "inferd,inferd-admin", "carol")
    machine.run("sh", "-c", f"cat > /etc/inferd/inferd.toml <<'END'\n{CONFIG}\nEND")
    machine.run("systemctl", "restart", "inferd")
    assert json.loads(machine.as_user("alice", "inferd", "whoami", "--json").stdout)["role"] == "operator"


def test_the_kernel_has_all_that_workers_are_shut_in_with(machine: Vm) -> None:
    sandbox = json.loads(machine.run("inferd", "doctor", "--json"))["sandbox"]
    assert (bool(sandbox["landlock"]), sandbox["seccomp"], sandbox["cgroup"]) == (True, True, "")


def test_a_worker_is_in_a_group_of_its_own_with_its_limits(machine: Vm, undisturbed: str) -> None:
    assert undisturbed
    name, pid = worker(machine)
    held = groups(machine)
    assert held["supervisor"] == [machine.property("MainPID")]
    assert held[name] == [pid]
    limit_bytes = int(read(machine, f"{SERVICE}/{name}/memory.max"))
    assert 512 << 20 < limit_bytes < 2 << 30
    assert read(machine, f"{SERVICE}/{name}/memory.oom.group") == "1"
    assert 64 < int(read(machine, f"{SERVICE}/{name}/pids.max")) < 200
    said = machine.run("journalctl", "-u", "inferd", "--no-pager", "-o", "cat")
    assert "demo is shut in: landlock" in said
    assert "seccomp" in said


def test_journal_lines_have_levels_and_no_time_of_their_own(machine: Vm) -> None:
    levels = machine.run("journalctl", "-u", "inferd", "--no-pager", "-o", "json", "--output-fields=PRIORITY,MESSAGE")
    rows = [json.loads(line) for line in levels.splitlines()]
    (serving,) = {(row["PRIORITY"], row["MESSAGE"]) for row in rows if "serving on" in row["MESSAGE"]}
    assert serving[0] == "6"
    assert serving[1].startswith("inferd: serving on")


def test_one_that_the_kernel_ends_for_its_memory_costs_no_token(machine: Vm, undisturbed: str) -> None:
    stream = Stream(machine, "starved")
    daemon, (name, pid) = machine.property("MainPID"), worker(machine)
    machine.run("sh", "-c", f"echo 1M > {SERVICE}/{name}/memory.max")
    until(lambda: machine.call("test", "-e", f"/proc/{pid}").returncode != 0, LIMIT_S)
    assert stream.answer()["text"] == undisturbed
    assert machine.property("MainPID") == daemon
    assert worker(machine)[0] != name
    assert name not in groups(machine)
    told = machine.as_user("alice", "inferd", "events", "--json").stdout
    assert "the worker of demo ran out of memory while running" in told


def test_a_clock_that_jumps_breaks_no_stream_and_no_daemon(machine: Vm, undisturbed: str) -> None:
    made = machine.as_user("carol", "inferd", "token", "create", "laptop", "--ttl", "1d")
    token, daemon = made.stdout.strip(), machine.property("MainPID")
    assert token, made.stderr
    stream = Stream(machine, "jumped")
    now_s = int(machine.run("date", "+%s"))
    machine.run("date", "-s", f"@{now_s + YEAR_S}")
    assert machine.as_user("alice", "inferd", "whoami", INFERD_TOKEN=token).returncode == 4
    machine.run("date", "-s", f"@{now_s - YEAR_S}")
    assert machine.as_user("alice", "inferd", "whoami", INFERD_TOKEN=token).returncode == 4
    machine.run("date", "-s", f"@{now_s + 30}")
    assert stream.answer()["text"] == undisturbed
    assert json.loads(machine.as_user("alice", "inferd", "whoami", "--json", INFERD_TOKEN=token).stdout)["tenant"]
    assert machine.property("MainPID") == daemon
    assert machine.property("NRestarts") == "0"


def test_a_killed_daemon_leaves_nobody_in_any_group(machine: Vm) -> None:
    daemon, (_, pid) = machine.property("MainPID"), worker(machine)
    machine.run("kill", "-KILL", daemon)
    until(lambda: machine.property("MainPID") not in (daemon, "0"), LIMIT_S)
    until(lambda: machine.property("ActiveState") == "active", LIMIT_S)
    assert machine.call("test", "-e", f"/proc/{pid}").returncode != 0
    assert list(groups(machine)) == ["supervisor"]
    answer = machine.as_user("alice", "inferd", "run", "demo", "fake:tokens=3", "--json")
    assert json.loads(answer.stdout)["text"], answer.stderr
