"""`inferd service ...`: inferd as a service of systemd, for one user or for the machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from .common import FAILED, REFUSED, UNREACHABLE, USAGE, AsJson, guarded, print_json, print_table, printable, stop

UNIT = "inferd.service"
TEMPLATE = Path(__file__).parents[2] / "packaging" / "systemd" / "inferd-user.service"
TIMEOUT_S = 120.0  # a start may take 60 s, a stop 45 s
CONFIG = "# inferd of this user. Every setting, with its default and reason: man inferd.toml\n"
PROPERTIES = ("LoadState", "ActiveState", "SubState", "MainPID", "NRestarts", "UnitFileState", "StatusText")

app = typer.Typer(help="inferd as a service of systemd.", no_args_is_help=True, rich_markup_mode=None)
OfUser = Annotated[bool, typer.Option("--user", help="For you alone, on your own daemon.")]


@app.callback()
def group() -> None:
    """inferd as a service of systemd."""


@app.command()
@guarded
def install(user: OfUser = False, as_json: AsJson = False) -> None:
    """Have your own daemon run whenever you are logged in."""
    _only_of_user(user, "the machine's service comes with the package: apt install ./inferd_*.deb")
    _need_manager()
    path = unit_path()
    _refuse_foreign(path)
    _write(path, unit_text(program()))
    config = _config_home() / "inferd" / "inferd.toml"
    if not config.exists():  # else the daemon would read the machine's, whose sockets and folders are not this user's
        _write(config, CONFIG)
    _systemctl("daemon-reload")
    _systemctl("enable", UNIT)
    _systemctl("restart", UNIT)
    if as_json:
        print_json({"unit": str(path), "lingers": _lingers()})
        return
    print(f"inferd runs as your service; its unit is {path}")
    if not _lingers():
        print("It ends when you log out, unless you say: loginctl enable-linger")


@app.command()
@guarded
def uninstall(user: OfUser = False, as_json: AsJson = False) -> None:
    """End your own service and remove its unit; what it has kept stays."""
    _only_of_user(user, "the machine's service goes with the package: apt remove inferd")
    _need_manager()
    path = unit_path()
    was_there = path.exists()
    if was_there:
        _refuse_foreign(path)
        _systemctl("disable", "--now", UNIT)
        path.unlink()
        _systemctl("daemon-reload")
    if as_json:
        print_json({"unit": str(path), "was_installed": was_there})
    else:
        print("your service is gone; its state and config are kept" if was_there else "you have no service of inferd")


@app.command()
@guarded
def status(as_json: AsJson = False) -> None:
    """Show the machine's service and your own; exit code 3 when neither runs."""
    _need_systemctl()
    found = [_look("machine", "--system"), _look("user", "--user")]
    if as_json:
        print_json({"services": found})
    else:
        columns = ("service", "state", "at boot", ">pid", ">restarts", "says")
        names = ("service", "state", "enabled", "pid", "restarts", "status")
        print_table(columns, ([printable(str(row[name] or "-")) for name in names] for row in found))
    if not any(str(row["state"]).startswith(("active", "reloading")) for row in found):
        raise typer.Exit(UNREACHABLE)


def program() -> list[str]:
    """How this very inferd is called: its console script, where there is one."""
    script = Path(sys.argv[0]).absolute()
    if script.name == "inferd" and os.access(script, os.X_OK):
        return [str(script)]
    return [sys.executable, "-P", "-m", "inferd.daemon.cli.app"]


def unit_text(command: list[str]) -> str:
    """The unit for one user, with the command that starts it."""
    return TEMPLATE.read_text().replace("@EXEC@ serve", " ".join(map(quoted, [*command, "serve"])))


def quoted(word: str) -> str:
    """One word of a command as systemd reads it."""
    plain = word.replace("%", "%%").replace("$", "$$")
    if plain and not set(plain) & set(" \t\n\r\"'\\;"):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r") + '"'


def unit_path() -> Path:
    return _config_home() / "systemd" / "user" / UNIT


def _config_home() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def _only_of_user(user: bool, otherwise: str) -> None:
    if not user:
        stop(USAGE, f"{otherwise}; for one of your own add --user")


def _need_systemctl() -> None:
    if shutil.which("systemctl") is None:
        stop(FAILED, "there is no systemctl: this machine is not run by systemd; start the daemon with: inferd serve")


def _need_manager() -> None:
    _need_systemctl()
    done = _run("--user", "show", "--property=Version")
    if done.returncode:
        said = done.stderr.strip() or f"systemctl ended with {done.returncode}"
        hint = "log in at the console or by ssh (not by su or sudo), or as root: loginctl enable-linger YOU"
        stop(FAILED, f"no service manager of yours runs ({said}); {hint}")


def _refuse_foreign(path: Path) -> None:
    """A unit that somebody wrote by hand is theirs."""
    first_line = TEMPLATE.read_text().partition("\n")[0]
    if path.exists() and not path.read_text(errors="replace").startswith(first_line):
        stop(REFUSED, f"{path} was not written by inferd; move it away first")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        stop(FAILED, f"{path} cannot be written: {error.strerror}")


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["systemctl", *words], capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        stop(FAILED, f"systemctl {' '.join(words)} did not end within {TIMEOUT_S:.0f} s")


def _systemctl(*words: str) -> None:
    """One verb of this user's manager; its failure ends ours."""
    done = _run("--user", *words)
    if done.returncode:
        said = done.stderr.strip().partition("\n")[0]
        stop(FAILED, f"systemctl --user {' '.join(words)}: {said}; see: journalctl --user -u inferd -n 20")


def _look(service: str, manager: str) -> dict[str, str | int | None]:
    """What one manager says of its unit; a manager that does not answer has none."""
    done = _run(manager, "show", UNIT, f"--property={','.join(PROPERTIES)}")
    said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    installed = said.get("LoadState") == "loaded"
    state = f"{said['ActiveState']} ({said['SubState']})" if installed else "not installed"
    return {
        "service": service,
        "state": "no manager" if done.returncode else state,
        "enabled": said.get("UnitFileState") or None if installed else None,
        "pid": int(said.get("MainPID") or 0) or None,
        "restarts": int(said.get("NRestarts") or 0) if installed else None,
        "status": said.get("StatusText") or None,
    }


def _lingers() -> bool:
    return Path("/var/lib/systemd/linger", os.environ.get("USER", "")).is_file()
