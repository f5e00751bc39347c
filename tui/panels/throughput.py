"""Tokens per second over the last minutes, and what requests feel of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import words
from ..cells import chart, clipped, nice

if TYPE_CHECKING:
    from ...protos import inferd_pb2 as pb
    from ..cells import Cell, Line
    from ..state import State
    from ..symbols import Symbols

AXIS_CELLS = 7


def panel(state: State, width: int, height: int, symbols: Symbols) -> list[Line]:
    """A chart with its axes above two lines of latencies; `height` lines in all."""
    if state.snapshot is None or height < 5:
        return []
    rates = state.snapshot.rates
    values = [s.generation_tokens_per_s for s in state.samples]
    feet = [_latencies(rates, width), _load(rates, width)]
    rows, plot_width = height - len(feet) - 2, width - AXIS_CELLS
    columns = plot_width * (2 if symbols.braille else 1)
    highest = nice(max(values[-columns:], default=0.0))
    plot = chart(values, plot_width, rows, symbols, highest=highest)
    lines: list[Line] = []
    for i, row in enumerate(plot):
        mark = _axis_mark(i, rows, highest)
        lines.append(((f"{mark:>{AXIS_CELLS - 2}}", "dim"), (f"{symbols.axis} ", "dim"), (row, "bar")))
    shown = state.samples[-columns:]
    seconds = shown[-1].at_s - shown[0].at_s if shown else 0.0
    ago = f"-{words.span(seconds)}" if seconds >= 1 else ""
    foot = f"{' ' * (AXIS_CELLS - 2)}{symbols.corner}{symbols.rule * max(0, plot_width - len(ago) - 3)}{ago} now"
    return [_speeds(rates, width), *lines, clipped(((foot, "dim"),), width), *feet]


def _speeds(rates: pb.Rates, width: int) -> Line:
    out, into = words.rate(rates.generation_tokens_per_s), words.rate(rates.prompt_tokens_per_s)
    return clipped((("out ", "dim"), (f"{out} tok/s", "value"), ("   in ", "dim"), (f"{into} tok/s", "")), width)


def _axis_mark(i: int, rows: int, highest: float) -> str:
    if i == 0:
        return words.rate(highest).removesuffix(".0")
    return words.rate(highest / 2).removesuffix(".0") if rows >= 5 and i == rows // 2 else ""


def _latencies(rates: pb.Rates, width: int) -> Line:
    def of(name: str) -> str:
        return words.ms(getattr(rates, name) if rates.HasField(name) else None)  # type: ignore[arg-type]

    cells: list[Cell] = [("TTFT ", "dim"), (f"p50 {of('ttft_p50_ms')}", "value")]
    cells.append((f"  p95 {of('ttft_p95_ms')}  p99 {of('ttft_p99_ms')}", ""))
    cells += [("   per token ", "dim"), (f"p50 {of('tpot_p50_ms')}", "value"), (f"  p95 {of('tpot_p95_ms')}", "")]
    return clipped(cells, width)


def _load(rates: pb.Rates, width: int) -> Line:
    low = words.ms(rates.queue_p50_ms if rates.HasField("queue_p50_ms") else None)
    high = words.ms(rates.queue_p95_ms if rates.HasField("queue_p95_ms") else None)
    cells: list[Cell] = [("queue ", "dim"), (f"p50 {low}", "value"), (f"  p95 {high}", "")]
    cells += [("   run ", "dim"), (f"{rates.num_requests_running}", "ok")]
    cells += [("  wait ", "dim"), (f"{rates.num_requests_waiting}", "warn" if rates.num_requests_waiting else "")]
    cells += [("  moved ", "dim"), (f"{rates.preemptions_total}", "")]
    cells += [("  failed ", "dim"), (f"{rates.requests_failed_total}", "fail" if rates.requests_failed_total else "")]
    cells += [
        ("  refused ", "dim"),
        (f"{rates.requests_refused_total}", "warn" if rates.requests_refused_total else ""),
    ]
    return clipped(cells, width)
