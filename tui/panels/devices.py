"""Devices: their memory, ours against others', how busy, hot and hungry they are, and what holds them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import words
from ..cells import bar, clipped, fit, spark, spread
from ..symbols import device_state, sign

if TYPE_CHECKING:
    from ...protos import inferd_pb2 as pb
    from ..cells import Cell, Line
    from ..state import DeviceSample, State
    from ..symbols import Symbols

BRIEF_BAR, GRAPH_MIN = 14, 10
NAME_CELLS = 16
HOT_CELSIUS = 85.0
STALLED = 10.0  # per cent of the time in which tasks stood still
MAX_PROCESSES = 6


def memory_bar(device: pb.DeviceState, width: int, symbols: Symbols) -> Line:
    """Ours first, then what others hold."""
    total = device.memory_total_bytes
    if not (total and device.HasField("memory_used_bytes")):
        return bar(width, [], symbols)
    own = min(max(device.own_bytes, 0), device.memory_used_bytes)
    return bar(width, [(own / total, "bar"), ((device.memory_used_bytes - own) / total, "bar-other")], symbols)


def sensors(device: pb.DeviceState, symbols: Symbols) -> list[Cell]:
    """Busy, hot, hungry: what is not measured is not there."""
    cells: list[Cell] = []
    has = device.HasField
    if has("utilization"):
        cells.append((f" {device.utilization:4.0%}", "value"))
    if has("temperature_celsius"):
        style = "warn" if device.temperature_celsius >= HOT_CELSIUS else ""
        cells.append((f" {device.temperature_celsius:.0f}{symbols.degree}C", style))
    if has("power_watts"):
        limit = f"/{device.power_limit_watts:.0f}" if has("power_limit_watts") else ""
        cells.append((f" {device.power_watts:.0f}{limit}W", ""))
    return cells


def state_cell(device: pb.DeviceState, symbols: Symbols) -> Cell:
    if device.state == "ok" and device.throttled_by:
        return f"{symbols.warn} throttled", "warn"
    name, style = device_state(device.state)
    return f"{sign(symbols, name)} {device.state}", style


def brief(device: pb.DeviceState, width: int, symbols: Symbols) -> Line:
    """A device in one line."""
    used = words.size(device.memory_used_bytes if device.HasField("memory_used_bytes") else None)
    name = device.name if device.kind != "cpu" else "RAM"
    left: list[Cell] = [
        (f"{fit(device.id, 5, symbols)} ", "title"),
        (fit(name, NAME_CELLS if width >= 100 else 12, symbols) + " ", ""),
        *memory_bar(device, BRIEF_BAR, symbols),
        (f" {used:>6}/{words.size(device.memory_total_bytes or None)}", "value"),
        *sensors(device, symbols),
    ]
    return spread(left, [state_cell(device, symbols)], width)


def panel(state: State, width: int, height: int, symbols: Symbols) -> list[Line]:
    """All devices in a few lines each, for a corner of a screen; what has no room is counted."""
    lines: list[Line] = []
    devices = list(state.snapshot.devices) if state.snapshot is not None else []
    devices.sort(key=lambda device: device.kind == "cpu")
    for i, device in enumerate(devices):
        block = [brief(device, width, symbols), _history_line(device, state.devices.get(device.id, ()), width, symbols)]
        if len(lines) + len(block) + (i < len(devices) - 1) > height - 2:
            lines.append(((f"and {len(devices) - i} more: see Devices", "dim"),))
            break
        lines += block
    if state.snapshot is not None:
        lines += host_lines(state.snapshot, width)[: max(0, height - len(lines))]
    return [clipped(line, width) for line in lines]


def _history_line(device: pb.DeviceState, samples: tuple[DeviceSample, ...], width: int, symbols: Symbols) -> Line:
    graph = spark([s.utilization or 0.0 for s in samples], max(GRAPH_MIN, min(30, width - 46)), symbols, highest=1.0)
    notes = "  ".join(_notes(device))
    return clipped((("      busy ", "dim"), (graph, "bar"), (f"  {notes}", "dim")), width)


def _notes(device: pb.DeviceState) -> list[str]:
    notes = []
    if device.own_bytes:
        notes.append(f"ours {words.size(device.own_bytes)}")
    if device.HasField("memory_used_bytes") and device.memory_used_bytes > device.own_bytes:
        notes.append(f"others {words.size(device.memory_used_bytes - device.own_bytes)}")
    if device.throttled_by:
        notes.append("throttled: " + ", ".join(device.throttled_by))
    if device.detail:
        notes.append(device.detail)
    return notes


def psi(host: pb.HostState) -> list[Cell]:
    """How much of the time tasks stand still for memory, processor and disk."""
    cells: list[Cell] = []
    for name in ("memory", "cpu", "io"):
        field = f"psi_{name}_some_avg10"
        if host.HasField(field):  # type: ignore[arg-type]
            value = getattr(host, field)
            cells.append((f" {name} {value:.1f}%", "warn" if value >= STALLED else ""))
    return [("stalled:", "dim"), *cells] if cells else []


def host_lines(snapshot: pb.Snapshot, width: int) -> list[Line]:
    """The machine around the devices."""
    host = snapshot.host
    free, total = words.size(host.memory_available_bytes), words.size(host.memory_total_bytes)
    first: list[Cell] = [
        ("host  ", "title"),
        (f"{free} of {total} free", ""),
        (f", booked {words.size(host.booked_bytes)}", "dim"),
    ]
    if host.HasField("memory_limit_bytes"):
        first.append((f", cgroup limit {words.size(host.memory_limit_bytes)}", ""))
    if host.pressure and host.pressure != "normal":
        first.append((f"  ! {host.pressure.replace('_', ' ')}", "warn"))
    lines = [clipped(first, width)]
    if stalled := psi(host):
        lines.append(clipped((("      ", ""), *stalled), width))
    return lines


def blocks(state: State, width: int, symbols: Symbols) -> list[Line]:
    """Every device with all that is known of it."""
    if state.snapshot is None:
        return []
    lines: list[Line] = []
    for device in sorted(state.snapshot.devices, key=lambda d: d.kind == "cpu"):
        lines += _block(device, state.devices.get(device.id, ()), width, symbols)
        lines.append(())
    return lines + _host_block(state.snapshot, width)


def _block(device: pb.DeviceState, samples: tuple[DeviceSample, ...], width: int, symbols: Symbols) -> list[Line]:
    facts = [device.architecture, f"driver {device.driver_version}" if device.driver_version else ""]
    facts.append(f"NUMA node {device.numa_node}" if device.HasField("numa_node") else "")
    about = "  ".join(fact for fact in facts if fact)
    head: list[Cell] = [
        (f"{device.id}  ", "title"),
        (f"{fit(device.name, min(40, width // 2), symbols).rstrip()}  ", "value"),
        (about, "dim"),
    ]
    lines = [spread(head, [state_cell(device, symbols)], width)]
    if device.detail:
        lines.append(((f"  {device.detail}", "warn"),))
    lines.append(_memory_line(device, width, symbols))
    graph = max(GRAPH_MIN, width - 40)
    if any(s.utilization is not None for s in samples) or device.HasField("utilization"):
        now = words.percent(device.utilization if device.HasField("utilization") else None)
        busy = spark([s.utilization or 0.0 for s in samples], graph, symbols, highest=1.0)
        lines.append((("  busy   ", "dim"), (busy, "bar"), (f"  {now}", "value")))
    if device.HasField("power_watts"):
        limit = device.power_limit_watts if device.HasField("power_limit_watts") else None
        watts = spark([s.power_watts or 0.0 for s in samples], graph, symbols, highest=limit)
        of = f" of {limit:.0f} W" if limit else " W"
        lines.append((("  power  ", "dim"), (watts, "bar"), (f"  {device.power_watts:.0f}{of}", "value")))
    lines += _clock_lines(device, symbols)
    return [clipped(line, width) for line in (*lines, *_process_lines(device))]


def _memory_line(device: pb.DeviceState, width: int, symbols: Symbols) -> Line:
    used = device.memory_used_bytes if device.HasField("memory_used_bytes") else None
    figures = f"  {words.size(used)} of {words.size(device.memory_total_bytes or None)}"
    shares = f"  booked {words.size(device.booked_bytes)}, {', '.join(_memory_notes(device)) or 'nothing of ours'}"
    return (
        ("  memory ", "dim"),
        *memory_bar(device, max(GRAPH_MIN, width - 64), symbols),
        (figures, "value"),
        (shares, "dim"),
    )


def _memory_notes(device: pb.DeviceState) -> list[str]:
    return [note for note in _notes(device) if note.startswith(("ours", "others"))]


def _clock_lines(device: pb.DeviceState, symbols: Symbols) -> list[Line]:
    has = device.HasField
    cells: list[Cell] = []
    if has("clock_mhz"):
        most = f" of {device.clock_max_mhz}" if has("clock_max_mhz") else ""
        cells.append((f"{device.clock_mhz}{most} MHz  ", ""))
    if has("memory_clock_mhz"):
        cells.append((f"memory {device.memory_clock_mhz} MHz  ", ""))
    if has("temperature_celsius"):
        hot = device.temperature_celsius >= HOT_CELSIUS
        cells.append((f"{device.temperature_celsius:.0f} {symbols.degree}C  ", "warn" if hot else ""))
    if device.throttled_by:
        cells.append((f"{symbols.warn} throttled: {', '.join(device.throttled_by).replace('_', ' ')}", "warn"))
    return [(("  clock  ", "dim"), *cells)] if cells else []


def _process_lines(device: pb.DeviceState) -> list[Line]:
    lines: list[Line] = []
    for process in list(device.processes)[:MAX_PROCESSES]:
        held = words.size(process.bytes if process.HasField("bytes") else None)
        whose = process.model or "not ours"
        lines.append(
            (
                (f"  {process.pid:>9}  ", "dim"),
                (f"{held:>7}  ", "value"),
                (words.plain(whose), "" if process.model else "dim"),
            )
        )
    if (rest := len(device.processes) - MAX_PROCESSES) > 0:
        lines.append(((f"             and {rest} more processes", "dim"),))
    return lines


def _host_block(snapshot: pb.Snapshot, width: int) -> list[Line]:
    host = snapshot.host
    lines: list[Line] = list(host_lines(snapshot, width))
    if host.HasField("swap_total_bytes") and host.swap_total_bytes:
        used = host.swap_total_bytes - host.swap_free_bytes
        lines.append(((f"      swap {words.size(used)} of {words.size(host.swap_total_bytes)} used", ""),))
    for node in host.numa_nodes:
        free = words.size(node.memory_free_bytes if node.HasField("memory_free_bytes") else None)
        total = words.size(node.memory_total_bytes if node.HasField("memory_total_bytes") else None)
        lines.append(((f"      NUMA node {node.id}: {node.cores} cores, {free} of {total} free", "dim"),))
    return [clipped(line, width) for line in lines]
