"""Requests as rows: all of them on the overview, those that wait in the queue."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...protos import inferd_pb2 as pb
from .. import words
from ..cells import bar, text_of
from ..columns import Column, Sheet
from ..symbols import CLASSES, REQUEST_STATES, sign

if TYPE_CHECKING:
    from ..cells import Cell
    from ..state import State
    from ..symbols import Symbols

Request = pb.RequestState
RANKS = {name: rank for rank, name in enumerate(CLASSES)}
STATES = {"running": 0, "parking": 1, "queued": 2}
FAR = float("inf")
CLASS_WORDS = {"interactive": "inter", "normal": "normal", "batch": "batch"}
PROGRESS_CELLS = 10


def waits(request: Request) -> bool:
    return request.state != "running"


def class_of(request: Request, _: Symbols) -> Cell:
    return CLASS_WORDS.get(request.priority, request.priority), CLASSES.get(request.priority, "")


def state_of(request: Request, symbols: Symbols) -> Cell:
    name, style = REQUEST_STATES.get(request.state, ("none", ""))
    return f"{sign(symbols, name)} {request.state}", style


def why_of(request: Request, _: Symbols) -> Cell:
    """One word; a request that runs and has no token yet has its prompt computed."""
    if waits(request):
        return request.why or "-", "warn"
    if request.stalled_ms >= 1000:
        return "client", "warn"
    return ("prompt", "dim") if not request.tokens and request.task == "generate" else ("-", "dim")


def because(request: Request, _: Symbols) -> Cell:
    if request.stalled_ms >= 1000:
        return f"its client has taken nothing for {words.ms(request.stalled_ms)}", "warn"
    return request.why_text, ""


def output_of(request: Request, _: Symbols) -> Cell:
    most = f"/{words.short(request.max_tokens)}" if request.max_tokens else ""
    return f"{words.short(request.tokens)}{most}", "value" if request.tokens else "dim"


def progress_of(request: Request, symbols: Symbols) -> Cell:
    if not request.max_tokens or not request.tokens:
        return "", ""
    share = request.tokens / request.max_tokens
    return text_of(bar(PROGRESS_CELLS + 2, [(share, "bar")], symbols)).strip(
        symbols.bar_left + symbols.bar_right
    ), "bar"


def eta_of(request: Request, _: Symbols) -> Cell:
    if not request.HasField("eta_high_ms"):
        return "-", "dim"
    return words.eta(request.eta_low_ms, request.eta_high_ms), "accent"


def position_of(request: Request, _: Symbols) -> Cell:
    return (str(request.position + 1), "value") if request.HasField("position") else ("-", "dim")


def ttft_of(request: Request, _: Symbols) -> Cell:
    return (words.ms(request.ttft_ms), "") if request.HasField("ttft_ms") else ("-", "dim")


def prompt_of(request: Request, _: Symbols) -> Cell:
    return (words.count(request.prompt_tokens), "") if request.HasField("prompt_tokens") else ("-", "dim")


def deadline_of(request: Request, _: Symbols) -> Cell:
    if not request.HasField("deadline_in_ms"):
        return "-", "dim"
    late = request.deadline_in_ms < 1000
    return words.span(request.deadline_in_ms / 1e3), "warn" if late else ""


def by_class(request: Request) -> tuple[int, int, float, float]:
    """Classes, then who runs, then in the order of their turns, then who came first."""
    position = request.position if request.HasField("position") else FAR
    rank, state = RANKS.get(request.priority, 9), STATES.get(request.state, 9)
    return rank, state, position if state else 0, -request.age_ms


def by_turn(request: Request) -> tuple[str, float, float]:
    """Of each model, in the order in which they will be served."""
    position = request.position if request.HasField("position") else FAR
    return request.model, position, -request.age_ms


def _identity(request: Request) -> str:
    return request.id


ID = Column[Request]("id", "ID", 8, lambda r, _: (r.id, "value"), lambda r: r.id, rank=0, grow=6)
CLASS = Column[Request]("class", "CLASS", 6, class_of, lambda r: RANKS.get(r.priority, 9), rank=2)
MODEL = Column[Request]("model", "MODEL", 11, lambda r, _: (r.model, ""), lambda r: r.model, rank=1, grow=5)
TENANT = Column[Request]("tenant", "TENANT", 7, lambda r, _: (r.tenant, ""), lambda r: r.tenant, rank=5, grow=3)
STATE = Column[Request]("state", "STATE", 9, state_of, lambda r: STATES.get(r.state, 9), rank=1)
OUTPUT = Column[Request](
    "tokens", "OUT", 5, lambda r, _: (words.short(r.tokens) if r.tokens else "-", ""), lambda r: r.tokens, True, 3
)
OUTPUT_OF = Column[Request]("output", "OUT/MAX", 11, output_of, lambda r: r.tokens, True, 12)
RATE = Column[Request](
    "rate", "TOK/S", 5, lambda r, _: (words.rate(r.tokens_per_s), "value"), lambda r: r.tokens_per_s, True, 2, 1
)
TTFT = Column[Request]("ttft", "TTFT", 5, ttft_of, lambda r: r.ttft_ms if r.HasField("ttft_ms") else None, True, 6, 1)
AGE = Column[Request]("age", "AGE", 5, lambda r, _: (words.span(r.age_ms / 1e3), ""), lambda r: r.age_ms, True, 4)
WHY = Column[Request]("why", "WHY", 7, why_of, lambda r: r.why, rank=1)
BECAUSE = Column[Request]("because", "WHY IT WAITS", 40, because, lambda r: r.why_text, rank=7, grow=60)
REASON = replace(BECAUSE, width=60, rank=4)
PROMPT = Column[Request](
    "prompt", "PROMPT", 6, prompt_of, lambda r: r.prompt_tokens if r.HasField("prompt_tokens") else None, True, 8
)
DEVICE = Column[Request](
    "device", "DEVICE", 6, lambda r, _: (",".join(r.devices) or "-", ""), lambda r: ",".join(r.devices), rank=11, grow=4
)
PROGRESS = Column[Request](
    "progress", "PROGRESS", PROGRESS_CELLS, progress_of, lambda r: r.tokens / (r.max_tokens or FAR), rank=10
)
POSITION = Column[Request](
    "position", "POS", 4, position_of, lambda r: r.position if r.HasField("position") else None, True, 0
)
ETA = Column[Request]("eta", "ETA", 11, eta_of, lambda r: r.eta_high_ms if r.HasField("eta_high_ms") else None, True, 2)
MOVES = Column[Request]("moves", "MOVES", 5, lambda r, _: (str(r.moves or "-"), ""), lambda r: r.moves, True, 13)
DEADLINE = Column[Request](
    "deadline",
    "DEADLINE",
    8,
    deadline_of,
    lambda r: r.deadline_in_ms if r.HasField("deadline_in_ms") else None,
    True,
    12,
)

LIVE = Sheet[Request](
    (ID, CLASS, MODEL, TENANT, STATE, PROMPT, OUTPUT, RATE, TTFT, AGE, DEVICE, PROGRESS, WHY, BECAUSE),
    _identity,
    by_class,
)
QUEUE = Sheet[Request](
    (POSITION, ID, CLASS, MODEL, TENANT, STATE, PROMPT, OUTPUT_OF, MOVES, DEADLINE, ETA, AGE, WHY, REASON),
    _identity,
    by_turn,
)


def live(state: State) -> list[Request]:
    return [] if state.snapshot is None else list(state.snapshot.requests)


def waiting(state: State) -> list[Request]:
    return [request for request in live(state) if waits(request)]
