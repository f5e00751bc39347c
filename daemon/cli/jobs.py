"""`inferd jobs`: work that outlives its client and the daemon."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .common import (
    CONTROLS,
    FAILED,
    REFUSED,
    Address,
    AsJson,
    Model,
    connect,
    duration,
    guarded,
    print_json,
    print_table,
    printable,
    stop,
)
from .run import Deadline, Lora, MaxTokens, Priority, Raw, Seed, Session, System, Temperature, read_prompt
from .run import Stop as StopOption

if TYPE_CHECKING:
    from ...protos import inferd_pb2 as pb
    from ...protos.client import Client
    from ...protos.compose import GenerateOptions

app = typer.Typer(help="Work that outlives its client and the daemon.", no_args_is_help=True, rich_markup_mode=None)

State = Literal["queued", "running", "done", "cancelled", "failed"]
Id = Annotated[str, typer.Argument(metavar="ID", help="A job's id, as `inferd jobs list` shows it.")]
Prompt = Annotated[str | None, typer.Argument(metavar="PROMPT", help="What to say; - or a pipe reads stdin.")]
Key = Annotated[
    str | None, typer.Option("--key", metavar="K", help="Asked for once more with it, this finds the same job.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Print the answer as it comes, until the job has ended.")]
Offset = Annotated[int, typer.Option("--offset", metavar="N", help="Leave out the first N tokens.")]


@app.command()
@guarded
def submit(
    model: Model,
    prompt: Prompt = None,
    key: Key = None,
    wait: Wait = False,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    stop: StopOption = None,
    priority: Annotated[Priority, typer.Option(help="Who goes first when others wait.")] = "batch",
    session: Session = None,
    system: System = None,
    raw: Raw = False,
    deadline_ms: Deadline = None,
    lora: Lora = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Have a prompt answered, whenever that will be."""
    options: GenerateOptions = {
        "max_tokens": max_tokens, "temperature": temperature, "seed": seed, "stop": stop, "priority": priority,
        "session_id": session, "system": system, "raw": raw, "deadline_ms": deadline_ms, "lora": lora,
    }  # fmt: skip
    text = read_prompt("-" if prompt is None else prompt, sys.stdin, as_json=as_json)
    with connect(address) as client:
        job = client.submit_job(model, text or "", key=key, **options)
        if wait:
            _follow(client, job.id, 0, as_json=as_json)
        elif as_json:
            _print_job(job)
        else:
            print(job.id)


@app.command("list")
@guarded
def list_jobs(
    state: Annotated[State | None, typer.Option("--state", help="Only those.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="At most so many.")] = 100,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Show jobs, the newest first."""
    from ...protos.jobs import job_twin

    with connect(address) as client:
        jobs = client.jobs(state or "", limit)
    if as_json:
        print_json({"jobs": [job_twin(job) for job in jobs]})
    elif jobs:
        columns = ("id", "state", "model", "tenant", "class", ">tokens", ">age", "key", "note")
        print_table(columns, [_row(job) for job in jobs])
    else:
        print("no jobs")


@app.command()
@guarded
def show(job_id: Id, address: Address = None, as_json: AsJson = False) -> None:
    """Show how far a job has come."""
    with connect(address) as client:
        job = client.job(job_id)
    if as_json:
        _print_job(job)
        return
    facts = {
        "id": job.id, "state": job.state, "model": job.model, "tenant": job.tenant, "class": job.priority,
        "key": job.idempotency_key, "age": duration(_age_s(job)), "tokens": job.tokens,
        "resumed": f"{job.resumed} times" if job.resumed else "", "error": job.error,
    }  # fmt: skip
    print_table(("", ""), [(name, value) for name, value in facts.items() if value != ""], header=False)


@app.command()
@guarded
def stream(job_id: Id, offset: Offset = 0, address: Address = None, as_json: AsJson = False) -> None:
    """Print a job's answer as it comes, until the job has ended."""
    with connect(address) as client:
        _follow(client, job_id, offset, as_json=as_json)


@app.command()
@guarded
def cancel(job_id: Id, address: Address = None, as_json: AsJson = False) -> None:
    """End a job; what it has answered so far stays."""
    with connect(address) as client:
        cancelled = client.cancel_job(job_id)
    if as_json:
        print_json({"id": job_id, "cancelled": cancelled})
        raise typer.Exit(0 if cancelled else REFUSED)
    if not cancelled:
        stop(REFUSED, f"job {job_id} has ended already")
    print(f"job {job_id} is cancelled")


def _follow(client: "Client", job_id: str, offset: int, *, as_json: bool) -> None:
    """A terminal gets nothing that it would obey; a pipe every byte."""
    from ...protos.jobs import job_twin

    answer = client.stream_job(job_id, offset)
    controls = CONTROLS if sys.stdout.isatty() else {}
    open_line = False
    for delta in answer:
        if delta.text and not as_json:
            sys.stdout.write(delta.text.translate(controls) if controls else delta.text)
            sys.stdout.flush()
            open_line = not delta.text.endswith("\n")
    if open_line:
        print()
    if answer.job is None:
        stop(FAILED, f"the answer of job {job_id} ended without saying how")
    if as_json:
        print_json({**job_twin(answer.job), "text": answer.text_so_far()})
    if answer.job.state != "done":
        stop(FAILED, f"job {job_id} is {answer.job.state}: {answer.job.error}")


def _print_job(job: "pb.Job") -> None:
    from ...protos.jobs import job_twin

    print_json(job_twin(job))


def _row(job: "pb.Job") -> tuple[object, ...]:
    note = printable(job.error) or (f"resumed {job.resumed} times" if job.resumed else "")
    age = duration(_age_s(job))
    return job.id, job.state, job.model, job.tenant, job.priority, job.tokens, age, job.idempotency_key, note


def _age_s(job: "pb.Job") -> float:
    return max(0.0, time.time() - job.created_unix_s)
