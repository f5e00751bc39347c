"""`inferd pull` and `alias`: models from the hub, and other names for them."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .common import FAILED, USAGE, Address, AsJson, all_fields, connect, guarded, print_json, printable, size, stop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...protos import inferd_pb2 as pb

WORDS = {
    "resolving": "looking for",
    "fetching": "fetching",
    "verifying": "verifying",
    "ready": "got",
}


@guarded
def pull(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME on the hub.")],
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="A .gguf or .onnx file of it; default: the one that suits best.")
    ] = "",
    revision: Annotated[str, typer.Option(metavar="R", help="A branch, tag or commit; default: main.")] = "",
    name: Annotated[str, typer.Option(metavar="N", help="What to call the model; default: as its file.")] = "",
    sha256: Annotated[str, typer.Option(metavar="H", help="What the file must have, in hex; default: as told.")] = "",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Get a model from the hub; one that was cut short is gone on with."""
    with connect(address) as client:
        progress = iter(client.pull(repo, file, revision=revision, name=name, sha256=sha256))
        last = _silently(progress) if as_json or not sys.stderr.isatty() else _with_bar(repo, progress)
    if last is None or last.state != "ready":
        stop(FAILED, f"{repo} is not here: {last.state if last else 'the daemon said nothing'}")
    if as_json:
        print_json(all_fields(last))
    else:
        why = f" ({last.why})" if last.why else ""
        print(printable(f"{last.model} is here: {last.file}{why}, {size(last.total_bytes)}, SHA-256 {last.sha256}"))


@guarded
def alias(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The other name.")],
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="The model that it stands for, as `inferd models` shows it.")
    ] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take the name away.")] = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Give a model another name, kept over restarts."""
    if remove is bool(model):
        stop(USAGE, "either name a MODEL, or --remove the alias")
    with connect(address) as client:
        previous = client.set_alias(name, model)
    if as_json:
        print_json({"alias": name, "model": model, "previous_model": previous})
    elif remove:
        print(printable(f"{name} is no name any more; it stood for {previous}"))
    else:
        instead = f" instead of {previous}" if previous not in ("", model) else ""
        print(printable(f"{name} stands for {model}{instead}"))


def _silently(progress: "Iterator[pb.PullProgress]") -> "pb.PullProgress | None":
    last = None
    for report in progress:
        last = report
    return last


def _with_bar(repo: str, progress: "Iterator[pb.PullProgress]") -> "pb.PullProgress | None":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    text, pace = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[pace]}", markup=False)
    last = None
    with Progress(text, BarColumn(), DownloadColumn(), pace, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, pace="")
        for report in progress:
            last = report
            said = printable(f"{WORDS.get(report.state, report.state)} {report.file or repo}")
            pace_text = f"{size(report.bytes_per_s)}/s" if report.state == "fetching" and report.bytes_per_s else ""
            total = report.total_bytes or None
            bar.update(task, description=said, total=total, completed=report.bytes, pace=pace_text)
    return last
