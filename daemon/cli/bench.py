"""`inferd bench`: an arrival trace replayed, in virtual time or against a running daemon."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .common import USAGE, Address, AsJson, console, guarded, print_json, print_table, printable, stop

if TYPE_CHECKING:
    from ..domain.config import Config
    from ..domain.request import Priority
    from ..replay.arrivals import Arrival, Shape
    from ..replay.fleet import Machine
    from ..replay.report import ClassReport, Report, Result, Spread

SLOTS, DECODE_TOKENS_PER_S, PREFILL_TOKENS_PER_S = 8, 30.0, 3000.0  # of an ordinary model on an ordinary card
MODEL = "demo"  # that a trace is sent to which names none

Trace = Annotated[Path, typer.Option("--trace", metavar="FILE", help="Arrivals as CSV: Azure's, VTC's or a recording.")]
Policy = Annotated[Literal["fair", "fifo"] | None, typer.Option("--policy", help="Who is served when; default: fair.")]
From = Annotated[float, typer.Option("--from", metavar="S", min=0, help="Begin at this second of the trace.")]
To = Annotated[float | None, typer.Option("--to", metavar="S", min=0, help="End before this second of the trace.")]
Speed = Annotated[float, typer.Option("--speed", metavar="X", help="So many times as many arrivals a second.")]
Slots = Annotated[
    int | None, typer.Option("--slots", metavar="N", min=1, max=4096, help=f"Requests at a time; default: {SLOTS}.")
]
Decode = Annotated[
    float | None, typer.Option(metavar="R", min=0, max=1e9, help=f"Of one stream; default: {DECODE_TOKENS_PER_S:g}.")
]
Prefill = Annotated[
    float | None, typer.Option(metavar="R", min=0, max=1e9, help=f"Of prompts; default: {PREFILL_TOKENS_PER_S:g}.")
]
Classes = Annotated[str | None, typer.Option(metavar="SHARES", help="Such as interactive=0.2,batch=0.8.")]
Tenants = Annotated[str | None, typer.Option(metavar="SHARES", help="Such as ada=10,bob=1.")]
Limits = Annotated[str | None, typer.Option(metavar="LIMITS", help="Refuse what waits longer: interactive=5,batch=60.")]
Targets = Annotated[
    str | None, typer.Option(metavar="TARGETS", help="The TTFT that counts as good; default: the limits.")
]
Deadlines = Annotated[str | None, typer.Option(metavar="DEADLINES", help="Such as batch=30000.")]
MaxPrompt = Annotated[int | None, typer.Option(metavar="N", min=1, help="Cut longer prompts.")]
MaxOutput = Annotated[int | None, typer.Option(metavar="N", min=1, help="Cut longer answers.")]
Save = Annotated[Path | None, typer.Option(metavar="FILE", help="Write what is replayed as a recording, too.")]
Live = Annotated[bool, typer.Option("--live", help="Send the arrivals to a running daemon.")]
Measure = Annotated[bool, typer.Option("--measure", help="Replay with the costs of a running daemon's model.")]
ModelName = Annotated[str, typer.Option("--model", metavar="NAME", help="The model that a trace does not name.")]


@guarded
def bench(
    trace: Trace,
    policy: Policy = None,
    from_s: From = 0.0,
    to_s: To = None,
    speed: Speed = 1.0,
    slots: Slots = None,
    decode_tokens_per_s: Decode = None,
    prefill_tokens_per_s: Prefill = None,
    classes: Classes = None,
    tenants: Tenants = None,
    limit_s: Limits = None,
    target_s: Targets = None,
    deadline_ms: Deadlines = None,
    max_prompt_tokens: MaxPrompt = None,
    max_output_tokens: MaxOutput = None,
    save: Save = None,
    live: Live = False,
    measure: Measure = False,
    model: ModelName = MODEL,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Replay an arrival trace through the scheduler in virtual time, or against a running daemon."""
    if live and (policy or limit_s or slots or decode_tokens_per_s or prefill_tokens_per_s or measure):
        stop(USAGE, "--live asks the daemon that runs: its policy, limits, slots and speed are its own")
    limits = by_class(limit_s, "--limit-s")
    targets = by_class(target_s, "--target-s") or limits
    shape = make_shape(from_s, to_s, speed, classes, tenants, deadline_ms, max_prompt_tokens, max_output_tokens)
    arrivals = read(trace, shape)
    if save is not None:
        write(save, arrivals)
    if live:
        return show(f"live, {model}", ask(arrivals, address, model), targets, as_json=as_json)
    machine = measured(address, model) if measure else make_machine(slots, decode_tokens_per_s, prefill_tokens_per_s)
    result = play(arrivals, machine, make_config(policy, limits))
    return show(describe(policy, machine), result, targets, as_json=as_json)


def ask(arrivals: "list[Arrival]", address: str | None, model: str) -> "Result":
    """Of the daemon that runs."""
    import asyncio

    from ..replay.live import play

    return asyncio.run(play(address, model, arrivals))


def play(arrivals: "list[Arrival]", machine: "Machine", config: "Config") -> "Result":
    """In virtual time."""
    from ..replay.replay import replay

    return replay(arrivals, machine, config)


# what was asked


def read(trace: Path, shape: "Shape") -> "list[Arrival]":
    from ..replay.arrivals import TraceError, read_trace, shaped

    try:
        arrivals = shaped(read_trace(trace), shape)
    except TraceError as error:
        stop(USAGE, str(error))
    if not arrivals:
        stop(USAGE, f"{trace}: no request between {shape.from_s:g} and {shape.to_s:g} s")
    return arrivals


def write(save: Path, arrivals: "list[Arrival]") -> None:
    from ..replay.arrivals import write_trace

    try:
        write_trace(save, arrivals)
    except OSError as error:
        stop(USAGE, f"{save}: {error.strerror}")


def make_shape(
    from_s: float,
    to_s: float | None,
    speed: float,
    classes: str | None,
    tenants: str | None,
    deadline_ms: str | None,
    max_prompt_tokens: int | None,
    max_output_tokens: int | None,
) -> "Shape":
    from ..replay.arrivals import MAX_TOKENS, Shape

    if not 0 < speed < math.inf:
        stop(USAGE, "--speed must be above 0")
    return Shape(
        from_s=from_s,
        to_s=math.inf if to_s is None else to_s,
        speed=speed,
        classes=by_class(classes, "--classes") or None,
        tenants=pairs(tenants, "--tenants") or None,
        deadlines_ms={priority: _whole_ms(ms) for priority, ms in by_class(deadline_ms, "--deadline-ms").items()},
        max_prompt_tokens=max_prompt_tokens or MAX_TOKENS,
        max_output_tokens=max_output_tokens or MAX_TOKENS,
    )


def _whole_ms(ms: float) -> int:
    from ..replay.arrivals import MAX_COUNT

    if not 1 <= ms <= MAX_COUNT:
        stop(USAGE, f"--deadline-ms must be from 1 to {MAX_COUNT:,}, not {ms:g}")
    return round(ms)


def pairs(text: str | None, option: str) -> dict[str, float]:
    """NAME=NUMBER,NAME=NUMBER; numbers above 0."""
    found: dict[str, float] = {}
    for part in (text or "").split(",") if text else []:
        name, _, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (name.isascii() and name.isprintable() and len(name) <= 64 and name) or not 0 < value < math.inf:
            stop(USAGE, f"{option} must be NAME=NUMBER,... with numbers above 0, not {part!r}")
        found[name.strip()] = value
    return found


def by_class(text: str | None, option: str) -> "dict[Priority, float]":
    from ..domain.request import Priority

    found = {}
    for name, value in pairs(text, option).items():
        if name not in [priority.value for priority in Priority]:
            stop(USAGE, f"{option}: there is no class {name!r}; there are {', '.join(p.value for p in Priority)}")
        found[Priority(name)] = value
    return found


def make_machine(slots: int | None, decode_tokens_per_s: float | None, prefill_tokens_per_s: float | None) -> "Machine":
    from ..replay.engine import Costs
    from ..replay.fleet import Machine

    decode = DECODE_TOKENS_PER_S if decode_tokens_per_s is None else decode_tokens_per_s
    prefill = PREFILL_TOKENS_PER_S if prefill_tokens_per_s is None else prefill_tokens_per_s
    return Machine(Costs(prefill_tokens_per_s=prefill, decode_tokens_per_s=decode), slots or SLOTS)


def measured(address: str | None, model: str) -> "Machine":
    import asyncio

    from ..replay.measure import measured as ask

    return asyncio.run(ask(address, model))


def make_config(policy: Literal["fair", "fifo"] | None, limits: "dict[Priority, float]") -> "Config":
    """The defaults, with this policy and these limits."""
    import msgspec

    from ..domain.config import Config, Turns

    turns = msgspec.structs.replace(Turns(), policy=policy or "fair")
    for priority, limit_s in limits.items():
        options = msgspec.structs.replace(getattr(turns, priority.value), first_token_limit_s=limit_s)
        turns = msgspec.structs.replace(turns, **{priority.value: options})
    return Config(scheduler=turns)


# what came of it


def describe(policy: str | None, machine: "Machine") -> str:
    costs = machine.costs
    prompts = f"prompts at {costs.prefill_tokens_per_s:,.0f} tokens/s" if costs.prefill_tokens_per_s else "prompts free"
    if costs.step_s or costs.row_s:
        speed = f"steps of {costs.step_s * 1e3:.2f} ms + {costs.row_s * 1e3:.2f} ms a stream"
    else:
        speed = f"{costs.decode_tokens_per_s:g} tokens/s a stream" if costs.decode_tokens_per_s else "answers free"
    return f"{policy or 'fair'}, {machine.slots} slots, {speed}, {prompts}"


COLUMNS = (
    "class", ">requests", ">done", ">refused", ">missed", ">failed", ">TTFT p50", ">p95", ">p99", ">E2EL p50", ">p95",
    ">p99", ">goodput/s", ">target", ">Jain",
)  # fmt: skip


def show(setting: str, result: "Result", targets_s: "dict[Priority, float]", *, as_json: bool) -> None:
    """The report, for people or for scripts."""
    from ..replay.report import report

    found = report(result, targets_s)
    if as_json:
        return print_json({"setting": setting, **found.twin()})
    out = console()
    out.print(printable(f"{setting}: {found.total.requests} requests in {found.span_s:,.1f} s"))
    print_table(COLUMNS, [_row(one) for one in (*found.classes, found.total)])
    for line in lines(found):
        out.print(printable(line), soft_wrap=True)
    return None


def lines(found: "Report") -> list[str]:
    """What has no column."""
    refused = ", ".join(f"{reason} {n}" for reason, n in found.refused_by.items())
    moves = f"preemptions {found.preemptions}, evictions {found.evictions}"
    shown = [f"output {found.output_tokens_per_s:,.0f} tokens/s; {moves}"]
    if refused:
        shown.append(f"refused: {refused}")
    if found.without_retry:
        shown.append(f"refused without saying when to come back: {found.without_retry}")
    if found.eta_covered is not None:
        shown.append(f"ETA: {found.eta_covered:.0%} of {found.eta_told} came in their 80 % interval")
    if found.gap_between is not None:
        ahead, behind = found.gap_between
        shown.append(
            f"service gap of backlogged tenants: {found.gap_tokens:,.0f} weighted tokens ({ahead} before {behind} at "
            f"{found.gap_at_s:,.1f} s); VTC's bound is {found.gap_bound_tokens:,.0f}"
        )
    if found.total.lost:
        shown.append(f"LOST: {found.total.lost} requests had no end")
    return shown


def _row(one: "ClassReport") -> tuple[Any, ...]:
    target = "-" if one.target_s is None else f"{one.target_s:g} s"
    counts = (one.requests, one.done, one.refused, one.missed, one.failed)
    figures = (f"{one.goodput_per_s:.2f}", target, f"{one.jain:.3f}")
    return (one.name, *counts, *_times(one.ttft_ms), *_times(one.e2el_ms), *figures)


def _times(spread: "Spread") -> tuple[str, ...]:
    values = (spread.p50, spread.p95, spread.p99)
    return tuple(
        "-" if value is None else f"{value / 1e3:.2f} s" if value >= 1000 else f"{value:.0f} ms" for value in values
    )
