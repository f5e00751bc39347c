"""What monitors see: the whole daemon at one moment, frozen. protos/inferd.proto says what each figure means."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelRow:
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


@dataclass(frozen=True, slots=True)
class RequestRow:
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


@dataclass(frozen=True, slots=True)
class DeviceRow:
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


@dataclass(frozen=True, slots=True)
class HostRow:
    memory_total_bytes: int
    memory_available_bytes: int
    booked_bytes: int
    margin_bytes: int
    psi_memory_some_avg10: float | None


@dataclass(frozen=True, slots=True)
class RatesRow:
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


@dataclass(frozen=True, slots=True)
class WarningRow:
    code: str
    severity: str  # info, warning, error
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    sequence: int
    version: str
    uptime_s: float
    models: tuple[ModelRow, ...]
    requests: tuple[RequestRow, ...]
    devices: tuple[DeviceRow, ...]
    rates: RatesRow
    host: HostRow
    warnings: tuple[WarningRow, ...]
