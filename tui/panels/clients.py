"""Who asks: a row for each tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...protos import inferd_pb2 as pb
from .. import words
from ..columns import Column, Sheet

if TYPE_CHECKING:
    from ..cells import Cell
    from ..state import State
    from ..symbols import Symbols

Tenant = pb.TenantState


def number(name: str, style: str = "") -> object:
    """The cell of a count; none is a dash."""

    def cell(row: Tenant, _: Symbols) -> Cell:
        n = getattr(row, name)
        return (words.count(n), style) if n else ("-", "dim")

    return cell


def _count(key: str, title: str, width: int, name: str, rank: int, style: str = "", grow: int = 0) -> Column[Tenant]:
    cell = number(name, style)
    return Column[Tenant](key, title, width, cell, lambda row: getattr(row, name), True, rank, grow)  # type: ignore[arg-type]


def stalls_of(row: Tenant, symbols: Symbols) -> Cell:
    """Streams whose client takes nothing now, and those that were cut for it."""
    if row.stalled:
        return f"{symbols.warn} {row.stalled} now", "warn"
    return (f"{row.stalls_total} cut", "") if row.stalls_total else ("-", "dim")


NAME = Column[Tenant]("tenant", "TENANT", 12, lambda r, _: (r.tenant, "value"), lambda r: r.tenant, grow=20)
IN_RATE = Column[Tenant](
    "in", "IN TOK/S", 8, lambda r, _: (words.rate(r.prompt_tokens_per_s), ""), lambda r: r.prompt_tokens_per_s, True, 3
)
OUT_RATE = Column[Tenant](
    "out",
    "OUT TOK/S",
    9,
    lambda r, _: (words.rate(r.generation_tokens_per_s), "value"),
    lambda r: r.generation_tokens_per_s,
    True,
    1,
)
STALLS = Column[Tenant]("stalls", "STALLED", 8, stalls_of, lambda r: (r.stalled, r.stalls_total), True, 2)
IDLE = Column[Tenant]("idle", "LAST ASKED", 10, lambda r, _: (words.span(r.idle_s), ""), lambda r: r.idle_s, True, 4)

CLIENTS = Sheet[Tenant](
    (
        NAME,
        _count("running", "RUN", 4, "running", 0, "ok"),
        _count("waiting", "WAIT", 5, "waiting", 0, "warn"),
        OUT_RATE,
        IN_RATE,
        _count("prompt", "IN TOKENS", 9, "prompt_tokens_total", 6, grow=2),
        _count("generation", "OUT TOKENS", 10, "generation_tokens_total", 5, grow=2),
        _count("finished", "FINISHED", 8, "requests_finished_total", 7),
        _count("failed", "FAILED", 6, "requests_failed_total", 8, "fail"),
        _count("cancelled", "CANCELLED", 9, "requests_cancelled_total", 10),
        _count("refused", "REFUSED", 7, "requests_refused_total", 9, "warn"),
        STALLS,
        IDLE,
    ),
    lambda row: row.tenant,
    lambda row: (-(row.running + row.waiting), -row.generation_tokens_total, row.tenant),
)


def rows(state: State) -> list[Tenant]:
    return [] if state.snapshot is None else list(state.snapshot.tenants)
