"""Models as rows: those that are deployed as the daemon has them, and the rest of its catalog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import words
from ..cells import wrapped
from ..columns import Column, Sheet
from ..symbols import MODEL_STATES, sign

if TYPE_CHECKING:
    from ...protos import inferd_pb2 as pb
    from ..cells import Cell, Line
    from ..state import State
    from ..symbols import Symbols

STATES = {name: rank for rank, name in enumerate(("ready", "loading", "draining", "failed", "cold"))}


@dataclass(frozen=True, slots=True)
class Row:
    """A worker of a model, or a model that has none. `info` is what its file says."""

    name: str
    live: pb.ModelState | None
    info: pb.ModelInfo | None = None
    copy: int = 0  # of several workers of one model

    @property
    def state(self) -> str:
        if self.live is not None:
            return self.live.state
        return self.info.state if self.info is not None else "cold"


def rows(state: State) -> list[Row]:
    """One for each worker, then one for each model of the catalog that nobody has asked for."""
    infos = {info.name: info for info in state.catalog}
    found: list[Row] = []
    copies: dict[str, int] = {}
    for live in state.snapshot.models if state.snapshot is not None else ():
        copy = copies[live.name] = copies.get(live.name, -1) + 1
        found.append(Row(live.name, live, infos.get(live.name), copy))
    return found + [Row(info.name, None, info) for info in state.catalog if info.name not in copies]


def in_use(state: State) -> list[Row]:
    """Those of the overview: what is loaded, or wanted, or failed."""
    return [row for row in rows(state) if row.live is not None and (row.state != "cold" or row.live.waiting)]


def state_of(row: Row, symbols: Symbols) -> Cell:
    name, style = MODEL_STATES.get(row.state, ("none", ""))
    text = f"{sign(symbols, name)} {row.state}"
    if row.state == "loading" and row.live is not None:
        text += f" {row.live.load_progress:.0%}"
    return text, style


def bytes_of(n_bytes: int) -> Cell:
    return (words.size(n_bytes), "") if n_bytes else ("-", "dim")


def slots_of(row: Row, _: Symbols) -> Cell:
    if row.live is None or row.state not in ("ready", "draining"):
        return "-", "dim"
    return f"{row.live.running}/{row.live.slots}", "value" if row.live.running else ""


def waiting_of(row: Row, _: Symbols) -> Cell:
    n = row.live.waiting if row.live is not None else 0
    return (str(n), "warn") if n else ("-", "dim")


def kv_of(row: Row, _: Symbols) -> Cell:
    """How much of its KV cells are in use, in bytes where these are known."""
    live = row.live
    if live is None or not live.kv_cells:
        return "-", "dim"
    share = f"{live.kv_cells_used / live.kv_cells:.0%}"
    return (f"{words.size(live.kv_bytes)} {share}", "") if live.kv_bytes else (share, "")


def rate_of(row: Row, _: Symbols) -> Cell:
    return words.rate(row.live.tokens_per_s if row.live is not None else 0.0), "value"


def idle_of(row: Row, _: Symbols) -> Cell:
    """When it is unloaded if nobody asks for it, or why it stays."""
    live = row.live
    if live is not None and live.pinned:
        return "pinned", "accent"
    if live is None or row.state != "ready":
        return "-", "dim"
    if live.leases:
        return "leased", "accent"
    if live.HasField("unload_in_s"):
        return words.span(live.unload_in_s), ""
    return ("in use", "") if live.running or live.waiting else ("stays", "dim")


def note_of(row: Row, _: Symbols) -> Cell:
    live, info = row.live, row.info
    if live is not None and live.error:
        return live.error, "fail"
    if info is not None and info.error:
        return info.error, "fail"
    return (f"{info.architecture} {info.quantization}".strip(), "dim") if info is not None else ("", "")


def file_of(row: Row, _: Symbols) -> Cell:
    return bytes_of(row.info.file_bytes if row.info is not None else 0)


def device_of(row: Row, _: Symbols) -> Cell:
    loaded = row.live is not None and row.state not in ("cold", "failed")
    return (",".join(row.live.devices), "") if loaded and row.live is not None else ("-", "dim")


def _idle_s(row: Row) -> float | None:
    return row.live.unload_in_s if row.live is not None and row.live.HasField("unload_in_s") else None


def _order(row: Row) -> tuple[int, str, int]:
    return STATES.get(row.state, 9), row.name, row.copy


def _key(row: Row) -> str:
    return f"{row.name}\0{row.copy}"


def _live(row: Row, name: str) -> float:
    return float(getattr(row.live, name)) if row.live is not None else 0.0


NAME = Column[Row]("name", "MODEL", 14, lambda r, _: (r.name, "value"), lambda r: r.name, grow=18)
STATE = Column[Row]("state", "STATE", 12, state_of, lambda r: STATES.get(r.state, 9), rank=0)
DEVICE = Column[Row]("device", "DEVICE", 6, device_of, lambda r: device_of(r, None)[0], rank=3, grow=6)  # type: ignore[arg-type]
MEMORY = Column[Row](
    "memory", "MEMORY", 6, lambda r, _: bytes_of(r.live.bytes if r.live else 0), lambda r: _live(r, "bytes"), True, 2
)
WEIGHTS = Column[Row](
    "weights",
    "WEIGHTS",
    7,
    lambda r, _: bytes_of(r.live.weights_bytes if r.live else 0),
    lambda r: _live(r, "weights_bytes"),
    True,
    6,
)
KV = Column[Row]("kv", "KV USED", 9, kv_of, lambda r: _live(r, "kv_cells_used"), True, 5, 2)
SLOTS = Column[Row]("slots", "SLOTS", 5, slots_of, lambda r: _live(r, "running"), True, 1)
WAIT = Column[Row]("waiting", "WAIT", 4, waiting_of, lambda r: _live(r, "waiting"), True, 1)
RATE = Column[Row]("rate", "TOK/S", 6, rate_of, lambda r: _live(r, "tokens_per_s"), True, 1)
IDLE = Column[Row]("idle", "IDLE UNLOAD", 11, idle_of, _idle_s, True, 2)
PID = Column[Row](
    "pid",
    "PID",
    7,
    lambda r, _: (str(r.live.pid) if r.live and r.live.pid else "-", "dim"),
    lambda r: _live(r, "pid"),
    True,
    9,
)
FILE = Column[Row]("file", "FILE", 6, file_of, lambda r: r.info.file_bytes if r.info is not None else 0, True, 7)
NOTE = Column[Row]("note", "NOTE", 12, note_of, lambda r: note_of(r, None)[0], rank=8, grow=60)  # type: ignore[arg-type]

MODELS = Sheet[Row]((NAME, STATE, DEVICE, MEMORY, WEIGHTS, KV, SLOTS, WAIT, RATE, IDLE, FILE, PID, NOTE), _key, _order)
BRIEF = Sheet[Row]((NAME, STATE, DEVICE, MEMORY, SLOTS, WAIT, RATE, IDLE, NOTE), _key, _order)


def detail(row: Row, width: int) -> list[Line]:
    """Everything about one model."""
    lines: list[Line] = []
    info, live = row.info, row.live
    if info is not None:
        facts = [
            f"{info.architecture} {info.quantization}".strip(),
            f"{words.count(info.parameters)} parameters" if info.parameters else "",
            f"file {words.size(info.file_bytes)}",
            f"context {info.context_tokens:,}" if info.context_tokens else "",
            f"{info.layers} layers" if info.layers else "",
            info.task,
            "chat template" if info.chat else "",
        ]
        lines += wrapped(" | ".join(fact for fact in facts if fact), width)
    if live is not None and row.state != "cold":
        facts = [
            f"memory {words.size(live.bytes)}",
            f"weights {words.size(live.weights_bytes)}" if live.weights_bytes else "",
            f"KV {words.size(live.kv_bytes)}" if live.kv_bytes else "",
            f"resident {words.size(live.rss_bytes)}" if live.HasField("rss_bytes") else "",
            f"KV cells {live.kv_cells_used:,} used + {live.kv_cells_kept:,} kept of {live.kv_cells:,}"
            if live.kv_cells
            else "",
            f"prompt cache {words.size(live.cache_bytes)}" if live.cache_bytes else "",
            f"context {live.context_tokens:,}" if live.context_tokens else "",
            f"leases {live.leases}" if live.leases else "",
            f"estimate {live.estimate_error:+.1%} off" if live.HasField("estimate_error") else "",
        ]
        lines += wrapped(" | ".join(fact for fact in facts if fact), width)
    error = (live.error if live is not None else "") or (info.error if info is not None else "")
    return lines + wrapped(error, width, "fail")


def plan_lines(plan: pb.PlanLoadResponse, width: int) -> list[Line]:
    """What a load would do, for whoever is about to ask for it."""
    lines: list[Line] = []
    words_of = {
        "loaded": ("it is loaded already", "ok"),
        "fits": ("it fits", "ok"),
        "evicts": (f"{', '.join(plan.victims)} would make way", "warn"),
        "waits": ("it would have to wait", "warn"),
        "refused": ("it does not fit", "fail"),
    }
    text, style = words_of.get(plan.outcome, (plan.outcome, ""))
    where = f" on {', '.join(plan.devices)}" if plan.devices else ""
    took = f", in about {words.ms(plan.load_ms)}" if plan.HasField("load_ms") else ""
    lines += wrapped(f"{text}{where}{took}", width, style)
    for pool in plan.pools:
        need = f"{pool.pool}: needs {words.size(pool.needed_bytes)}, {words.size(max(0, pool.free_bytes))} free"
        lines += wrapped(need, width, "" if pool.free_bytes >= pool.needed_bytes else "warn")
    for holder in plan.holders:
        stays = f"stays: {holder.stays}" if holder.stays else "may make way"
        lines += wrapped(f"{holder.model} holds {words.size(holder.bytes)}, {stays}", width, "dim")
    for text in (plan.message, plan.change and f"would fit with: {plan.change}", *plan.notes):
        lines += wrapped(text, width)
    return lines
