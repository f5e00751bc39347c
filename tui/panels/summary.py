"""The top of every screen: who the daemon is, how it does, and what an operator should look at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import words
from ..cells import clipped, spark, spread, width_of
from ..state import Link
from ..symbols import SEVERITIES, daemon_state, sign
from . import devices

if TYPE_CHECKING:
    from ...protos import inferd_pb2 as pb
    from ..cells import Cell, Line
    from ..state import State
    from ..symbols import Symbols

MAX_DEVICES = 3
MIN_SPARK = 8


def title(state: State, width: int, symbols: Symbols, *, address: str, pace: str) -> Line:
    """One line: the daemon, where it is, as whom we look, and how new all this is."""
    snapshot = state.snapshot
    left: list[Cell] = [(" inferd ", "title")]
    if state.link is Link.LIVE and snapshot is not None:
        name, style = daemon_state(snapshot.state)
        left.append((f"{sign(symbols, name)} {snapshot.state or 'serving'}", style))
    else:
        left.append((f"{symbols.fail} {state.link.value}", "fail" if state.link is Link.LOST else "warn"))
    if snapshot is not None:
        host = f"  {words.plain(snapshot.host.name)}" if snapshot.host.name else ""
        left += [(f"{host}  up {words.span(snapshot.uptime_s)}  v{snapshot.version}", "")]
    short = address if width >= 110 else address.split(":", 1)[0] if address.startswith("unix:") else address
    whom = f"  {state.role}" if state.role else ""
    right: Line = ((f"{short}{whom}  {pace} ", "dim"),)
    return spread(clipped(left, width - width_of(right) - 1), right, width)  # who and how new before where


def banner(state: State, now_s: float, width: int, symbols: Symbols) -> list[Line]:
    """While the daemon is gone: why, when it is tried again, and how old what is below is."""
    if state.link is not Link.LOST:
        return []
    said = [f"what you see is {words.span(state.age_s(now_s))} old"] if state.snapshot is not None else []
    if state.retry_at_s is not None:
        said.append(f"trying again in {words.span(max(0.0, state.retry_at_s - now_s))}")
    text = f" {symbols.fail} {'; '.join([*said, state.reason])}"
    return [((words.plain(text).ljust(width)[:width], "banner"),)]


def warnings(snapshot: pb.Snapshot, width: int, symbols: Symbols, most: int) -> list[Line]:
    """The worst first; what has no room is counted."""
    order = list(SEVERITIES)
    rank = {severity: -i for i, severity in enumerate(order)}
    rows = sorted(snapshot.warnings, key=lambda warning: rank.get(warning.severity, 1))
    lines: list[Line] = []
    for i, warning in enumerate(rows[:most]):
        name, style = SEVERITIES.get(warning.severity, ("warn", "warn"))
        more = f" (and {len(rows) - most} more)" if i == most - 1 and len(rows) > most else ""
        remedy = f"; {warning.remedy}" if warning.remedy else ""
        text = words.plain(f" {sign(symbols, name)} {warning.message}{more}{remedy}")
        lines.append(clipped(((text, style),), width))
    return lines


def rates_line(state: State, width: int, symbols: Symbols) -> Line:
    """Throughput, latency and load in one line."""
    assert state.snapshot is not None
    rates = state.snapshot.rates
    has = rates.HasField
    right: list[Cell] = [("  ttft ", "dim")]
    right.append((f"p50 {words.ms(rates.ttft_p50_ms if has('ttft_p50_ms') else None)}", "value"))
    right.append((f" p95 {words.ms(rates.ttft_p95_ms if has('ttft_p95_ms') else None)}", ""))
    right += [("  run ", "dim"), (f"{rates.num_requests_running}", "ok")]
    right += [("  wait ", "dim"), (f"{rates.num_requests_waiting} ", "warn" if rates.num_requests_waiting else "")]
    left: list[Cell] = [(" tok/s ", "dim"), (f"{words.rate(rates.generation_tokens_per_s):>5} ", "value")]
    room = width - sum(len(text) for text, _ in (*left, *right)) - 1
    if room >= MIN_SPARK:
        left.append((spark([s.generation_tokens_per_s for s in state.samples], min(room, 60), symbols), "bar"))
    return spread(left, right, width)


def small(state: State, width: int, symbols: Symbols) -> list[Line]:
    """Below the title on a small screen: a line for each of the first devices, then the rates."""
    snapshot = state.snapshot
    if snapshot is None:
        return []
    shown = sorted(snapshot.devices, key=lambda device: device.kind == "cpu")
    lines = [clipped(((" ", ""), *devices.brief(d, width - 2, symbols)), width) for d in shown[:MAX_DEVICES]]
    if len(shown) > MAX_DEVICES:
        lines.append(((f" and {len(shown) - MAX_DEVICES} more devices", "dim"),))
    lines += warnings(snapshot, width, symbols, 1)
    return [*lines, rates_line(state, width, symbols)]
