"""What of the Snapshot an operator should look at: each with a code, how much it matters, its cause and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..domain.device import DeviceState
from ..domain.errors import Code
from ..domain.snapshot import WarningRow
from .machine import HOST
from .view_machine import condition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .machine import Machine
    from .node import Node

SEVERITIES = ("error", "warning", "info")
FULL = 0.9  # of the queue
PRESSED = {
    "no_prefetch": "no second copy of a model is loaded",
    "no_loads": "no model is loaded",
    "shed_batch": "batch requests are refused",
    "refuse": "all requests are refused",
}


def warnings(node: Node, machine: Machine) -> tuple[WarningRow, ...]:
    """The worst first."""
    rows = [*_daemon(node), *_models(node), *_devices(machine), *_memory(node, machine)]
    return tuple(sorted(rows, key=lambda row: SEVERITIES.index(row.severity)))


def _daemon(node: Node) -> Iterator[WarningRow]:
    health = node.health
    if health.stalled:
        message = f"requests for {', '.join(health.stalled)} could run, and are not started"
        remedy = "restart the daemon, and keep its log: this is a fault of inferd"
        yield WarningRow("scheduler_stalled", "error", message, remedy)
    if health.config_error:
        remedy = "mend it (see: inferd config check), then: inferd reload"
        yield WarningRow("config_refused", "error", health.config_error, remedy)
    if health.needs_restart:
        message = f"other in the config than in force: {', '.join(health.needs_restart)}"
        yield WarningRow("needs_restart", "info", message, "restart the daemon when it suits you")
    if node.keyring.unreadable:
        message = "the file of tokens cannot be read, so that no token holds"
        yield WarningRow("tokens_unreadable", "error", message, "see the daemon's log, mend or remove it, then restart")
    if trouble := node.durable.archive.trouble:
        remedy = "free some space, or set jobs.folder to another disk"
        yield WarningRow(Code.NO_DISK.value, "warning", trouble, remedy)
    if node.draining:
        yield WarningRow("draining", "warning", "an operator lets nothing new in", "run: inferd drain --off")
    desk = node.scheduler.desk
    if desk.total.n >= FULL * desk.limits.max_requests:
        message = f"{desk.total.n:,} requests wait, of {desk.limits.max_requests:,} that may"
        yield WarningRow("queue_nearly_full", "warning", message, "send less, or raise queue.max_requests")


def _models(node: Node) -> Iterator[WarningRow]:
    for resident in node.fleet:
        if resident.model.error:
            remedy = "see the daemon's log; the next request tries again after a pause"
            yield WarningRow(Code.MODEL_FAILED.value, "error", resident.model.error, remedy)
    cages = {resident.model.ready.cage for resident in node.fleet if resident.model.ready is not None}
    if weak := [cage for cage in cages - {"", "off"} if not ("landlock" in cage and "seccomp" in cage)]:
        message = f"models are not shut in as they should be: this kernel has {weak[0]}, not both Landlock and seccomp"
        yield WarningRow("sandbox_weak", "warning", message, "run: inferd doctor")
    for owner, pid in node.ledger.held.items():
        n_bytes = sum(node.ledger.bytes_of(owner).values())
        message = f"process {pid} was killed, but the kernel holds it and its {n_bytes / 2**20:,.0f} MiB"
        yield WarningRow(
            "worker_held", "error", message, f"see what it waits for (ps -o stat,wchan {pid}), or restart the machine"
        )
    for name in node.health.lost:
        message = f"{name} was on a device that is lost, and fits nowhere else"
        yield WarningRow("model_lost", "error", message, "bring the device back (see: inferd doctor), then restart")


def _devices(machine: Machine) -> Iterator[WarningRow]:
    for device in machine.hardware.devices:
        state, detail = condition(device, machine.readings.get(device.id))
        if state is not DeviceState.OK:
            message = f"{device.id} ({device.name}): {detail or state.value}"
            yield WarningRow(f"device_{state.value}", "warning", message, "run: inferd doctor")


def _memory(node: Node, machine: Machine) -> Iterator[WarningRow]:
    if node.ledger.headroom_bytes(HOST) < 0:
        message = "less memory is free than the configured margin"
        yield WarningRow("low_memory", "warning", message, "unload a model or end other programs")
    grade = node.scheduler.pressure.grade
    if grade:
        psi = machine.memory.psi_some_avg10 or 0.0
        stops = PRESSED[grade.name.lower()]
        message = f"tasks stood still for memory {psi:g} % of the last 10 s; until it is less {stops}"
        yield WarningRow("memory_pressure", "warning", message, "end other programs, or unload a model")
