"""The package in a booted systemd, from its installation to its purge: `make deb-test`, as root.

One story, told in the order of the file: each test leaves the machine to the next one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inferd.tests.e2e.daemons import until
from inferd.tests.packaging import machine as machines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.tests.packaging.machine import Machine

ROOT = Path(__file__).parents[2]
DROPINS = "/etc/systemd/system/inferd.service.d"
RESTART_LIMIT_S = 2.0
WATCHDOG_LIMIT_S = 30.0  # WatchdogSec is 15 s

if not os.environ.get("INFERD_BOOT"):
    pytest.skip("boots a systemd and installs the package there: make deb-test", allow_module_level=True)
if reason := machines.missing():
    pytest.skip(reason, allow_module_level=True)


@pytest.fixture(scope="module")
def package() -> Path:
    """The newest one that `make deb` made."""
    found = sorted((ROOT / "build" / "deb").glob("inferd_*-1_*.deb"), key=lambda path: path.stat().st_mtime)
    if not found:
        pytest.fail("there is no package in build/deb: make deb")
    return found[-1]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("machine")
    with machines.Machine(machines.rootfs(sys.version_info.minor), folder) as booted:
        yield booted
    shutil.rmtree(folder)


def workers(machine: Machine) -> list[str]:
    """Pids, as the machine numbers them, of what the daemon has spawned."""
    return machine.run("pgrep", "-u", "inferd", "-f", "inferd.backends", check=False).split()


def ask(machine: Machine, user: str, model: str = "demo") -> str:
    """What a model, such as the bundled one, says to one user."""
    done = machine.as_user(user, "inferd", "run", model, "hello", "--json", "--max-tokens", "8")
    assert done.returncode == 0, done.stderr + machine.journal()
    return str(json.loads(done.stdout)["text"])


def newer(package: Path, folder: Path) -> Path:
    """The same package with a higher revision."""
    subprocess.run(["dpkg-deb", "-R", package, folder / "tree"], check=True)
    control = folder / "tree" / "DEBIAN" / "control"
    control.write_text(control.read_text().replace("-1\n", "-2\n", 1))
    made = folder / "inferd_newer.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", folder / "tree", made], check=True)
    shutil.rmtree(folder / "tree")
    return made


def install(machine: Machine, package: Path) -> None:
    shutil.copy(package, machine.root / "root" / "inferd.deb")
    machine.run("apt-get", "install", "-y", "-q", "--no-install-recommends", "/root/inferd.deb")


@pytest.mark.skipif(shutil.which("lintian") is None, reason="there is no lintian")
def test_lintian_has_nothing_to_say(package: Path) -> None:
    done = subprocess.run(["lintian", "--allow-root", package], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_an_installation_serves_at_once(machine: Machine, package: Path) -> None:
    install(machine, package)
    assert machine.run("systemctl", "is-active", "inferd") == "active"
    assert machine.run("systemctl", "is-enabled", "inferd") == "enabled"
    assert machine.is_serving()
    assert machine.run("dpkg", "-V", "inferd") == ""


def test_it_listens_on_its_sockets_and_on_nothing_else(machine: Machine) -> None:
    assert machine.run("ss", "-Hltu") == ""
    assert machine.run("stat", "-c", "%a %U:%G", "/run/inferd") == "750 inferd:inferd"
    assert machine.run("stat", "-c", "%a %U:%G", "/run/inferd/inferd.sock") == "660 inferd:inferd"
    assert machine.run("stat", "-c", "%a %U:%G", "/run/inferd-admin") == "2750 inferd:inferd-admin"


def test_a_member_of_the_group_gets_an_answer(machine: Machine) -> None:
    machine.run("useradd", "-m", "-G", "inferd", "alice")
    assert ask(machine, "alice")
    for monitor in (("inferd", "top"), ("inferd-top",)):
        assert "demo" in machine.as_user("alice", *monitor, "--once", "--screen", "models").stdout


def test_an_admin_puts_a_model_where_everybody_finds_it(machine: Machine) -> None:
    machine.run("useradd", "-m", "-G", "inferd,inferd-admin", "carol")
    model = "/usr/lib/inferd/lib/python3*/site-packages/inferd/backends/llama/demo.gguf"
    put = "cp {} /var/lib/inferd/models/{}.gguf"
    assert machine.as_user("alice", "sh", "-c", put.format(model, "hers")).returncode != 0
    assert machine.as_user("carol", "sh", "-c", put.format(model, "ours")).returncode == 0
    assert ask(machine, "alice", "ours")


def test_an_admin_hands_out_tokens_and_nobody_else_does(machine: Machine) -> None:
    if machine.call("inferd", "token", "--help").returncode:
        pytest.skip("this inferd has no tokens")
    made = machine.as_user("carol", "inferd", "token", "create", "laptop", "--role", "viewer")
    assert made.returncode == 0, made.stderr
    seen = machine.as_user("alice", "inferd", "whoami", "--json", INFERD_TOKEN=made.stdout.strip())
    assert json.loads(seen.stdout)["role"] == "viewer"
    refused = machine.as_user("alice", "inferd", "token", "create", "mine")
    assert refused.returncode == 4, refused.stderr


def test_a_shell_completes_what_one_types(machine: Machine) -> None:
    load = ". /usr/share/bash-completion/completions/inferd; COMP_WORDS=(inferd unl); COMP_CWORD=1"
    assert machine.run("bash", "-c", f"{load}; _inferd_completion inferd; echo ${{COMPREPLY[@]}}") == "unload"


def test_an_outsider_is_refused_and_told_why(machine: Machine) -> None:
    machine.run("useradd", "-m", "bob")
    done = machine.as_user("bob", "inferd", "run", "demo", "hello")
    assert done.returncode == 4
    assert "group" in done.stderr
    assert "Traceback" not in done.stderr
    assert machine.as_user("bob", "cat", "/etc/inferd/tokens").returncode != 0


def test_the_score_holds_in_the_running_system(machine: Machine) -> None:
    said = machine.run("systemd-analyze", "security", "--no-pager", "--threshold=16", "inferd.service")
    assert "Overall exposure level for inferd.service: 1." in said


def test_a_killed_daemon_is_back_in_two_seconds_without_orphans(machine: Machine) -> None:
    ask(machine, "alice")
    before, pid = workers(machine), machine.property("MainPID")
    assert before
    machine.run("kill", "-KILL", pid)
    took_s = until(lambda: machine.property("MainPID") not in (pid, "0") and machine.is_serving())
    print(f"killed: serving again after {took_s:.2f} s")
    assert took_s <= RESTART_LIMIT_S
    assert machine.run("ps", "-o", "pid=", "-p", ",".join(before), check=False) == ""
    assert ask(machine, "alice")


def test_a_daemon_that_stands_still_is_replaced(machine: Machine) -> None:
    pid, n_restarts = machine.property("MainPID"), int(machine.property("NRestarts"))
    machine.run("kill", "-STOP", pid)
    took_s = until(lambda: int(machine.property("NRestarts")) > n_restarts, WATCHDOG_LIMIT_S)
    print(f"stopped: noticed after {took_s:.1f} s")
    machine.wait_until_serving()
    assert machine.property("MainPID") != pid
    assert ask(machine, "alice")


def test_a_reload_keeps_the_process_and_a_bad_config_changes_nothing(machine: Machine) -> None:
    config, pid = machine.root / "etc/inferd/inferd.toml", machine.property("MainPID")
    good = config.read_text()
    config.write_text(f'log_level = "debug"\n{good}')
    machine.run("systemctl", "reload", "inferd")
    config.write_text(f"nonsense = 1\n{good}")
    machine.call("systemctl", "reload", "inferd")
    config.write_text(good)
    assert machine.property("MainPID") == pid
    assert ask(machine, "alice")


def test_a_bad_config_at_the_start_is_not_tried_again(machine: Machine) -> None:
    config = machine.root / "etc/inferd/inferd.toml"
    good = config.read_text()
    config.write_text(f"nonsense = 1\n{good}")
    assert machine.call("systemctl", "restart", "inferd").returncode != 0
    config.write_text(good)
    assert (machine.property("ExecMainStatus"), machine.property("ActiveState")) == ("78", "failed")
    assert "nonsense" in machine.journal()
    machine.run("systemctl", "restart", "inferd")
    assert ask(machine, "alice")


@pytest.mark.parametrize("dropins", [("uds-only", "cpu-only"), ("lan",), ("pull",)])
def test_it_serves_with_the_dropins(machine: Machine, dropins: tuple[str, ...]) -> None:
    machine.run("mkdir", "-p", DROPINS)
    for name in dropins:
        machine.run("cp", f"/usr/share/inferd/systemd/{name}.conf", DROPINS)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "inferd")
    try:
        assert ask(machine, "alice")
    finally:
        machine.run("rm", "-r", DROPINS)
        machine.run("systemctl", "daemon-reload")


def test_a_user_may_have_a_daemon_of_their_own(machine: Machine) -> None:
    machine.run("loginctl", "enable-linger", "bob")
    of_bob = {"XDG_RUNTIME_DIR": f"/run/user/{machine.run('id', '-u', 'bob')}", "HOME": "/home/bob", "USER": "bob"}
    until(
        lambda: machine.root.parent and machine.call("test", "-S", f"{of_bob['XDG_RUNTIME_DIR']}/bus").returncode == 0
    )
    done = machine.as_user("bob", "inferd", "service", "install", "--user", **of_bob)
    assert done.returncode == 0, done.stderr
    asked = machine.as_user("bob", "inferd", "run", "demo", "hello", "--json", "--max-tokens", "8", **of_bob)
    assert asked.returncode == 0, asked.stderr
    shown = json.loads(machine.as_user("bob", "inferd", "service", "status", "--json", **of_bob).stdout)
    assert [row["state"] for row in shown["services"]] == ["active (running)"] * 2
    assert machine.as_user("bob", "inferd", "service", "uninstall", "--user", **of_bob).returncode == 0
    assert machine.as_user("bob", "inferd", "ps", **of_bob).returncode == 4


def test_an_upgrade_restarts_it_and_keeps_the_config(machine: Machine, package: Path, tmp_path: Path) -> None:
    config, pid = machine.root / "etc/inferd/inferd.toml", machine.property("MainPID")
    config.write_text(config.read_text() + "\n# ours\n")
    install(machine, newer(package, tmp_path))
    assert machine.run("dpkg-query", "-W", "-f=${Version}", "inferd").endswith("-2")
    assert machine.property("MainPID") not in (pid, "0")
    assert config.read_text().endswith("# ours\n")
    assert ask(machine, "alice")


def test_an_upgrade_does_not_start_what_was_stopped(machine: Machine, package: Path) -> None:
    machine.run("systemctl", "stop", "inferd")
    machine.run("dpkg", "-i", "/root/inferd.deb")
    assert machine.property("ActiveState") == "inactive"
    machine.run("systemctl", "start", "inferd")


def test_root_leaves_no_files_between_those_of_the_package(machine: Machine) -> None:
    machine.run("inferd", "top", "--once")
    machine.run("inferd", "ps")
    listed = set(machine.run("dpkg", "-L", "inferd").splitlines())
    assert [path for path in machine.run("find", "/usr/lib/inferd").splitlines() if path not in listed] == []
    assert machine.run("dpkg", "-V", "inferd").splitlines() == ["??5?????? c /etc/inferd/inferd.toml"]  # ours


def test_a_removal_ends_it_and_keeps_what_it_knows(machine: Machine) -> None:
    machine.run("apt-get", "remove", "-y", "-q", "inferd")
    assert workers(machine) == []
    assert machine.call("systemctl", "is-active", "inferd").returncode != 0
    assert not (machine.root / "usr/lib/inferd").exists()
    assert (machine.root / "var/lib/inferd/models").is_dir()
    assert (machine.root / "etc/inferd/inferd.toml").is_file()


def test_a_purge_leaves_the_user_and_nothing_else(machine: Machine) -> None:
    machine.run("apt-get", "purge", "-y", "-q", "inferd")
    kept = ("etc/inferd", "var/lib/inferd", "var/cache/inferd", "var/log/inferd")
    left = [name for name in kept if (machine.root / name).exists()]
    assert left == []
    assert machine.call("test", "-e", "/run/inferd-admin").returncode != 0
    assert machine.run("id", "-un", "inferd") == "inferd"
