"""Arrivals to replay: recorded traces read from CSV, and what may be made of them.

The header tells the kind of a file: the Azure LLM inference traces (Patel et al., ISCA'24), the VTC trace (Sheng et
al., OSDI'24), or a recording of our own, which `write_trace` writes.
"""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from ..domain.request import RECORDING, Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T")
MAX_COUNT = 2**31 - 1  # milliseconds
MAX_TOKENS = 2**24  # of one prompt or answer; a replay keeps as many numbers
OWN = RECORDING


class TraceError(Exception):
    """A trace cannot be used; the message names the file, and the line and field where one is wrong."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as it came. `output_tokens` is how long its answer was; a replay makes it as long again."""

    at_s: float  # from the start of the trace
    prompt_tokens: int
    output_tokens: int
    tenant: str = "default"
    priority: Priority = Priority.INTERACTIVE
    model: str = ""  # the one that is replayed on
    deadline_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """What is made of a trace, in the order of the fields. Shares need not add up to one."""

    from_s: float = 0.0
    to_s: float = math.inf  # not included
    speed: float = 1.0  # so many times as many arrivals per second
    classes: Mapping[Priority, float] | None = None  # shares; None: as recorded
    tenants: Mapping[str, float] | None = None  # shares; None: as recorded
    deadlines_ms: Mapping[Priority, int] = field(default_factory=dict)  # of those that have none
    max_prompt_tokens: int = MAX_TOKENS  # longer ones are cut
    max_output_tokens: int = MAX_TOKENS


def read_trace(path: Path) -> list[Arrival]:
    """Every arrival in the file, in the order of time. Raises TraceError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            arrivals = _read(path, file)
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise TraceError(f"{path}: not UTF-8 at byte {error.start}") from None
    if not arrivals:
        raise TraceError(f"{path}: there is no request in it")
    return sorted(arrivals, key=lambda arrival: arrival.at_s)


def write_trace(path: Path, arrivals: Iterable[Arrival]) -> None:
    """A recording of our own, with the columns of OWN."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(OWN)
        for a in arrivals:
            deadline = "" if a.deadline_ms is None else a.deadline_ms
            row = (repr(a.at_s), a.tenant, a.priority.value, a.model, a.prompt_tokens, a.output_tokens, deadline)
            writer.writerow(row)


def shaped(arrivals: Sequence[Arrival], shape: Shape) -> list[Arrival]:
    """The arrivals of the window, as `shape` has them; who is who depends on the place in the trace alone."""
    found = []
    for i, arrival in enumerate(arrivals):
        if shape.from_s <= arrival.at_s < shape.to_s:
            found.append(_shaped(arrival, i, shape))
    return found


def _shaped(arrival: Arrival, i: int, shape: Shape) -> Arrival:
    priority = arrival.priority if shape.classes is None else drawn(shape.classes, "class", i)
    deadline_ms = shape.deadlines_ms.get(priority) if arrival.deadline_ms is None else arrival.deadline_ms
    return replace(
        arrival,
        at_s=(arrival.at_s - shape.from_s) / shape.speed,
        priority=priority,
        tenant=arrival.tenant if shape.tenants is None else drawn(shape.tenants, "tenant", i),
        deadline_ms=deadline_ms,
        prompt_tokens=min(arrival.prompt_tokens, shape.max_prompt_tokens),
        output_tokens=min(arrival.output_tokens, shape.max_output_tokens),
    )


def drawn(shares: Mapping[T, float], salt: str, i: int) -> T:
    """The i-th draw from the shares: the same each time, and independent of draws with another salt."""
    digest = hashlib.blake2b(f"{salt} {i}".encode(), digest_size=8).digest()
    left = int.from_bytes(digest, "big") / 2**64 * sum(shares.values())
    for one, share in shares.items():
        left -= share
        if left < 0:
            return one
    return one  # the sum was rounded


# reading


class _Row:
    """One line of a file, whose fields are read with the name of what is wrong."""

    def __init__(self, path: Path, line: int, cells: dict[str, str]) -> None:
        self.path = path
        self.line = line
        self.cells = cells

    def count(self, name: str, most: int = MAX_TOKENS) -> int:
        """A whole number from 1."""
        text = self.cells[name].strip()
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= most):
            raise self.wrong(name, f"a whole number from 1 to {most:,}")
        return int(text)

    def optional_count(self, name: str, most: int) -> int | None:
        return self.count(name, most) if self.cells[name].strip() else None

    def seconds(self, name: str) -> float:
        try:
            value = float(self.cells[name])
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise self.wrong(name, "a time in seconds from 0")
        return value

    def moment_s(self, name: str) -> float:
        """A date with a time, in seconds."""
        try:
            return (
                datetime.fromisoformat(self.cells[name].strip()).replace(tzinfo=None) - datetime.min
            ).total_seconds()
        except ValueError:
            raise self.wrong(name, "a date with a time") from None

    def priority(self, name: str) -> Priority:
        try:
            return Priority(self.cells[name].strip())
        except ValueError:
            raise self.wrong(name, f"one of {', '.join(p.value for p in Priority)}") from None

    def wrong(self, name: str, wanted: str) -> TraceError:
        return TraceError(f"{self.path}:{self.line}: {name} must be {wanted}, not {self.cells[name]!r}")


def _azure(row: _Row) -> Arrival:
    return Arrival(row.moment_s("TIMESTAMP"), row.count("ContextTokens"), row.count("GeneratedTokens"))


def _vtc(row: _Row) -> Arrival:
    tenant = row.cells["client"]
    return Arrival(row.seconds("req_time_s"), row.count("prompt_len"), row.count("output_len"), tenant)


def _own(row: _Row) -> Arrival:
    return Arrival(
        row.seconds("at_s"),
        row.count("prompt_tokens"),
        row.count("output_tokens"),
        row.cells["tenant"],
        row.priority("priority"),
        row.cells["model"],
        row.optional_count("deadline_ms", MAX_COUNT),
    )


# columns -> what makes an arrival of a row
KINDS: dict[tuple[str, ...], Callable[[_Row], Arrival]] = {
    ("TIMESTAMP", "ContextTokens", "GeneratedTokens"): _azure,
    ("req_time_s", "client", "prompt_len", "output_len"): _vtc,
    OWN: _own,
}


def _read(path: Path, lines: Iterable[str]) -> list[Arrival]:
    reader = csv.reader(lines)
    try:
        columns = next(reader, [])
        make = next((make for wanted, make in KINDS.items() if set(wanted) <= set(columns)), None)
        if make is None:
            known = "; ".join(", ".join(kind) for kind in KINDS)
            raise TraceError(f"{path}:1: no trace has the columns {', '.join(columns)[:200]!r}; known are: {known}")
        arrivals = []
        for cells in filter(None, reader):
            if len(cells) != len(columns):
                message = f"{path}:{reader.line_num}: {len(cells)} fields where the header has {len(columns)}"
                raise TraceError(message)
            arrivals.append(make(_Row(path, reader.line_num, dict(zip(columns, cells, strict=True)))))
    except csv.Error as error:
        raise TraceError(f"{path}:{reader.line_num}: {error}") from None
    first_s = min((a.at_s for a in arrivals), default=0.0)  # times may be dates
    return [replace(a, at_s=a.at_s - first_s) for a in arrivals]
