"""Man pages and shell completions, made from what the command line and the commented config say of themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import typer.main
from typer.completion import get_completion_script

from inferd.daemon.cli.app import app
from inferd.tui.main import parser

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTING = re.compile(r"^#? ?(?P<key>[\w.]+ = .*?)(?:\s+# (?P<reason>.*))?$")
SECTION = re.compile(r"^(?P<hidden># )?\[(?P<name>[^#]+)\](?:\s+# (?P<reason>.*))?$")
MORE = re.compile(r"^\s+# ?(?P<reason>.*)$")
SHELLS = ("bash", "zsh", "fish")

EXIT_CODES = {
    "0": "done",
    "2": "bad usage",
    "3": "the daemon cannot be reached",
    "4": "refused: the daemon understood, and will not do it now or at all",
    "5": "failed",
    "75": "a daemon is already running there",
    "78": "the config is bad, or would be unsafe",
}

DAEMON = """\
.SH DESCRIPTION
The daemon of inferd loads models, gives requests their turn, and streams the answers over gRPC.
The package starts it as inferd.service, as the user inferd.
.PP
People in the group inferd reach its socket; those in inferd-admin the admin socket, too.
It listens on nothing else unless the config names an address.
.SH SIGNALS
.TP
.B SIGTERM\\fR, \\fBSIGINT
Take nothing new in, let what runs go on for [server] drain_s, and end. A second one does not wait.
.TP
.B SIGHUP
Read the config again; one that is bad changes nothing (systemctl reload inferd).
.SH FILES
.TP
.I /etc/inferd/inferd.toml
The config; see inferd.toml(5).
.TP
.I /etc/inferd/tokens
Tokens that the daemon takes over when it starts; readable by root alone.
.TP
.I /run/inferd/inferd.sock
Where clients find the daemon.
.TP
.I /var/lib/inferd
Its state: what was learned about loads, jobs, tokens.
.TP
.I /var/lib/inferd/models
Models, for everybody; members of inferd and inferd-admin may add some.
.TP
.I /var/cache/inferd
Prompts that were computed. It may be emptied while the daemon does not run.
.TP
.I /usr/share/inferd/systemd
What can be put into /etc/systemd/system/inferd.service.d: uds-only.conf (no network at all), lan.conf (an address in
private networks), pull.conf (let it download models), cpu-only.conf (no devices).
"""


def escaped(text: str) -> str:
    """Text as roff prints it unchanged."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in plain.split("\n"))


def title(name: str, section: int, version: str, about: str) -> str:
    """The head of a page."""
    head = f'.TH "{escaped(name.upper())}" "{section}" "" "inferd {version}" "inferd"\n.nh\n.ad l\n'
    return f"{head}.SH NAME\n{escaped(name)} \\- {escaped(about)}\n"


def item(term: str, text: str) -> str:
    """A term and what it is; quotes would be taken for those of the order's own words."""
    quoted = escaped(term).replace('"', "\\(dq")
    return f".TP\n.B {quoted}\n{escaped(text) or chr(92) + '&'}\n"


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every verb by its full name, those of groups too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def verb(name: str, command: Any) -> str:
    """What one verb is called with, and what for."""
    context = command.context_class(command, info_name=name, resilient_parsing=True)
    pieces = " ".join(command.collect_usage_pieces(context))
    text = f".SS inferd {escaped(name)} {escaped(pieces)}\n{escaped(command.help or '')}\n"
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in parameter.opts:
            text += item(*record)
    return text


def inferd_1(version: str) -> str:
    """The command line."""
    page = title("inferd", 1, version, "local inference for everybody on a workstation")
    page += ".SH SYNOPSIS\n.B inferd\n.I COMMAND\n[\\fIARGUMENTS\\fR...]\n.SH DESCRIPTION\n"
    page += "One daemon loads models and gives everybody's requests their turn; these are the commands to talk to it.\n"
    page += ".SH COMMANDS\n"
    page += "".join(verb(name, command) for name, command in commands(typer.main.get_command(app)))
    page += ".SH ENVIRONMENT\n" + item("INFERD_ADDRESS", "Where the daemon is, as --address.")
    page += ".SH EXIT STATUS\n" + "".join(item(code, meaning) for code, meaning in EXIT_CODES.items())
    return page + ".SH SEE ALSO\ninferd\\-top(1), inferd.toml(5), inferd(8)\n"


def inferd_top_1(version: str) -> str:
    """The monitor."""
    page = title("inferd-top", 1, version, "watch the queues, speed, memory and models of inferd")
    page += ".SH SYNOPSIS\n.B inferd\\-top\n[\\fIOPTIONS\\fR...]\n.SH DESCRIPTION\n"
    page += f"{escaped(parser().description or '')}\n.SH OPTIONS\n"
    for action in parser()._actions:
        value = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else "")
        page += item(" ".join((", ".join(action.option_strings), str(value))).strip(), action.help or "")
    return page + ".SH SEE ALSO\ninferd(1)\n"


def inferd_8(version: str) -> str:
    """The daemon as a service."""
    serve = dict(commands(typer.main.get_command(app)))["serve"]
    page = title("inferd", 8, version, "the daemon that serves models")
    page += ".SH SYNOPSIS\n.B systemctl\nstart | stop | reload | status inferd\n"
    page += ".PP\n.B inferd serve\n[\\fIOPTIONS\\fR...]\n"
    page += DAEMON + ".SH OPTIONS\n" + verb("serve", serve)
    page += ".SH EXIT STATUS\n" + "".join(item(code, meaning) for code, meaning in EXIT_CODES.items())
    return page + ".SH SEE ALSO\ninferd(1), inferd.toml(5), systemctl(1), journalctl(1)\n"


def inferd_toml_5(version: str, config: str) -> str:
    """The config, from the file that shows every default with its reason."""
    page = title("inferd.toml", 5, version, "the config of inferd")
    page += ".SH DESCRIPTION\nEvery setting with its default. A file that inferd cannot read as a whole is refused.\n"
    page += ".SH SETTINGS\n"
    for line in config.splitlines():
        if found := SECTION.match(line):
            page += f".SS [{escaped(found['name'])}]\n" + (f"{escaped(found['reason'])}\n" if found["reason"] else "")
        elif found := MORE.match(line):
            page += f"{escaped(found['reason'].strip())}\n"
        elif found := SETTING.match(line):
            page += item(found["key"], found["reason"] or "")
        elif line.startswith("# "):
            page += f"{escaped(line[2:])}\n.br\n"
    return page + ".SH SEE ALSO\ninferd(1), inferd(8)\n"


def completions() -> dict[str, str]:
    """By shell: the script that asks inferd itself what may follow."""
    made = {
        shell: get_completion_script(prog_name="inferd", complete_var="_INFERD_COMPLETE", shell=shell) + "\n"
        for shell in SHELLS
    }
    # The script for zsh registers itself, but one that zsh loads by its name is called instead the first time.
    made["zsh"] = made["zsh"].replace("compdef _inferd_completion inferd", '_inferd_completion "$@"')
    return made
