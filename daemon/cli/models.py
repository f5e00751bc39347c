"""`inferd models`, `load` and `unload`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .common import (
    FAILED,
    Address,
    AsJson,
    Model,
    all_fields,
    connect,
    count,
    duration,
    guarded,
    print_json,
    print_table,
    printable,
    size,
    stop,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...protos import inferd_pb2 as pb


TASKS = {
    "generate": "no chat template",
    "embed": "embeds texts",
    "rank": "ranks documents",
    "classify": "classifies texts",
    "infer": "takes tensors",
}


@guarded
def models(address: Address = None, as_json: AsJson = False) -> None:
    """Show the models that can be served."""
    with connect(address) as client:
        catalog = client.models()
    if as_json:
        print_json({"models": [all_fields(model) for model in catalog]})
        return
    if not catalog:
        print("no models; put GGUF or ONNX files in a folder and start the daemon with --models DIR")
        return
    columns = ("model", "state", "architecture", "quantization", ">parameters", ">size", ">context", "note")
    print_table(columns, [_row(model) for model in catalog])


@guarded
def load(model: Model, address: Address = None, as_json: AsJson = False) -> None:
    """Load a model now instead of at its first request."""
    with connect(address) as client:
        progress = iter(client.load(model))
        last = _silently(progress) if as_json or not sys.stderr.isatty() else _with_bar(model, progress)
    if last is None or last.state != "ready":
        stop(FAILED, f"{model} is not ready: {last.state if last else 'the daemon said nothing'}")
    if as_json:
        shown = {"model": model, "state": last.state, "load_ms": last.load_ms, "device": last.device}
        print_json(shown)
    else:
        print(printable(f"{model} is ready on {last.device or 'its device'} after {duration(last.load_ms / 1000)}"))


@guarded
def unload(
    model: Model,
    force: Annotated[bool, typer.Option("--force", help="Cut running requests short.")] = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Unload a model, after the requests that run on it."""
    with connect(address) as client:
        was_loaded = client.unload(model, force=force)
    if as_json:
        print_json({"model": model, "was_loaded": was_loaded})
    else:
        print(f"{model} is unloaded" if was_loaded else f"{model} was not loaded")


def _row(model: "pb.ModelInfo") -> tuple[object, ...]:
    return (
        model.name,
        model.state,
        model.architecture or "-",
        model.quantization or "-",
        count(model.parameters),
        size(model.file_bytes),
        count(model.context_tokens) if model.context_tokens >= 1_000_000 else model.context_tokens or "-",
        _note(model),
    )


def _note(model: "pb.ModelInfo") -> str:
    also = f"also called {', '.join(model.aliases)}" if model.aliases else ""
    return model.error or "; ".join(filter(None, ("" if model.chat else TASKS.get(model.task, ""), also)))


def _silently(progress: "Iterator[pb.LoadProgress]") -> "pb.LoadProgress | None":
    last = None
    for report in progress:
        last = report
    return last


def _with_bar(model: str, progress: "Iterator[pb.LoadProgress]") -> "pb.LoadProgress | None":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    last = None
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"loading {printable(model)}", total=1.0)
        for report in progress:
            last = report
            bar.update(task, completed=last.progress)
    return last
