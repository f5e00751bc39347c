"""What monitors see: the whole daemon at one moment, frozen. protos/inferd.proto says what each figure means.

Structs and no dataclasses: with 1,000 who wait their rows are made in 1 ms and not in 4.
"""

from __future__ import annotations

import msgspec


class ModelRow(msgspec.Struct, frozen=True):
    name: str
    state: str
    backend: str
    pid: int | None
    devices: tuple[str, ...]
    bytes: int
    slots: int
    running: int
    waiting: int
    pinned: bool
    load_progress: float
    idle_s: float | None
    rss_bytes: int | None
    context_tokens: int
    kv_cells: int
    kv_cells_used: int
    kv_cells_kept: int
    cache_bytes: int
    tokens_per_s: float
    error: str
    estimate_error: float | None  # of the footprint at the last load: 0.1 is a tenth too high
    weights_bytes: int
    kv_bytes: int
    unload_in_s: float | None
    leases: int
    task: str


class RequestRow(msgspec.Struct, frozen=True):
    id: str
    model: str
    priority: str
    tenant: str
    state: str
    why: str
    prompt_tokens: int | None
    tokens: int
    tokens_per_s: float
    age_ms: float
    ttft_ms: float | None
    position: int | None
    eta_low_ms: float | None
    eta_high_ms: float | None
    why_text: str
    max_tokens: int
    cached_tokens: int
    devices: tuple[str, ...]
    moves: int
    deadline_in_ms: float | None
    stalled_ms: float
    task: str


class TenantRow(msgspec.Struct, frozen=True):
    tenant: str
    running: int
    waiting: int
    prompt_tokens_per_s: float
    generation_tokens_per_s: float
    prompt_tokens_total: int
    generation_tokens_total: int
    requests_finished_total: int
    requests_failed_total: int
    requests_cancelled_total: int
    requests_refused_total: int
    stalled: int
    stalls_total: int
    idle_s: float


class ProcessRow(msgspec.Struct, frozen=True):
    pid: int
    bytes: int | None
    model: str


class DeviceRow(msgspec.Struct, frozen=True):
    id: str
    kind: str
    name: str
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    booked_bytes: int
    utilization: float | None
    temperature_celsius: float | None
    power_watts: float | None
    state: str
    detail: str
    own_bytes: int
    processes: tuple[ProcessRow, ...]
    power_limit_watts: float | None
    energy_joules: float | None
    clock_mhz: int | None
    clock_max_mhz: int | None
    memory_clock_mhz: int | None
    throttled_by: tuple[str, ...]
    numa_node: int | None
    architecture: str
    driver_version: str


class NumaRow(msgspec.Struct, frozen=True):
    id: int
    cores: int
    memory_total_bytes: int | None
    memory_free_bytes: int | None


class HostRow(msgspec.Struct, frozen=True):
    memory_total_bytes: int
    memory_available_bytes: int
    booked_bytes: int
    margin_bytes: int
    psi_memory_some_avg10: float | None
    name: str
    psi_memory_full_avg10: float | None
    psi_cpu_some_avg10: float | None
    psi_io_some_avg10: float | None
    memory_limit_bytes: int | None
    swap_total_bytes: int | None
    swap_free_bytes: int | None
    pressure: str
    cores: int
    numa_nodes: tuple[NumaRow, ...]


class RatesRow(msgspec.Struct, frozen=True):
    prompt_tokens_per_s: float
    generation_tokens_per_s: float
    num_requests_running: int
    num_requests_waiting: int
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None
    prompt_tokens_total: int
    prompt_tokens_cached_total: int
    generation_tokens_total: int
    requests_finished_total: int
    requests_failed_total: int
    requests_cancelled_total: int
    preemptions_total: int
    evictions_total: int
    computed_tokens_total: int
    delivered_tokens_total: int
    wasted_tokens_total: dict[str, int]
    ttft_p99_ms: float | None
    queue_p50_ms: float | None
    queue_p95_ms: float | None
    tpot_p50_ms: float | None
    tpot_p95_ms: float | None
    requests_refused_total: int


class WarningRow(msgspec.Struct, frozen=True):
    code: str
    severity: str  # info, warning, error
    message: str
    remedy: str


class Snapshot(msgspec.Struct, frozen=True):
    sequence: int
    version: str
    uptime_s: float
    models: tuple[ModelRow, ...]
    requests: tuple[RequestRow, ...]
    devices: tuple[DeviceRow, ...]
    rates: RatesRow
    host: HostRow
    warnings: tuple[WarningRow, ...]
    state: str  # serving, draining
    tenants: tuple[TenantRow, ...]
