"""What the monitor knows: a pure reducer from what the daemon says, and when, to the state that screens show."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..protos import inferd_pb2 as pb

HISTORY_S = 300.0  # that graphs can show
MAX_SAMPLES = 1200  # at four a second
MAX_EVENTS = 2000


class Link(Enum):
    """The way to the daemon."""

    CONNECTING = "connecting"
    LIVE = "live"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Sample:
    """What graphs are made of."""

    at_s: float
    prompt_tokens_per_s: float
    generation_tokens_per_s: float
    running: int
    waiting: int


@dataclass(frozen=True, slots=True)
class DeviceSample:
    """A missing reading is None."""

    at_s: float
    utilization: float | None
    memory: float | None  # the used share
    power_watts: float | None


S = TypeVar("S", Sample, DeviceSample)


@dataclass(frozen=True, slots=True)
class State:
    link: Link = Link.CONNECTING
    reason: str = ""  # why there is none
    retry_at_s: float | None = None
    snapshot: pb.Snapshot | None = None
    received_s: float = 0.0
    samples: tuple[Sample, ...] = ()
    devices: Mapping[str, tuple[DeviceSample, ...]] = field(default_factory=dict)
    events: tuple[pb.Event, ...] = ()
    catalog: tuple[pb.ModelInfo, ...] = ()
    role: str = ""  # viewer, user, operator, admin; empty: not known yet
    tenant: str = ""

    def age_s(self, now_s: float) -> float:
        """How old what is shown is."""
        return max(0.0, now_s - self.received_s)

    def request(self, request_id: str) -> pb.RequestState | None:
        requests = () if self.snapshot is None else self.snapshot.requests
        return next((request for request in requests if request.id == request_id), None)

    def model(self, name: str) -> pb.ModelState | None:
        models = () if self.snapshot is None else self.snapshot.models
        return next((model for model in models if model.name == name), None)


def on_snapshot(state: State, snapshot: pb.Snapshot, now_s: float) -> State:
    """A newer picture of the daemon."""
    rates = snapshot.rates
    sample = Sample(
        now_s,
        rates.prompt_tokens_per_s,
        rates.generation_tokens_per_s,
        rates.num_requests_running,
        rates.num_requests_waiting,
    )
    known = state.devices
    devices = {d.id: _recent((*known.get(d.id, ()), device_sample(d, now_s)), now_s) for d in snapshot.devices}
    return replace(
        state,
        link=Link.LIVE,
        reason="",
        retry_at_s=None,
        snapshot=snapshot,
        received_s=now_s,
        samples=_recent((*state.samples, sample), now_s),
        devices=devices,
    )


def on_lost(state: State, reason: str, retry_at_s: float | None) -> State:
    """The daemon does not answer; what it said last stays."""
    return replace(state, link=Link.LOST, reason=reason, retry_at_s=retry_at_s)


def on_events(state: State, events: Sequence[pb.Event]) -> State:
    """What happened; of what was heard before, nothing counts twice."""
    last = state.events[-1].sequence if state.events else 0
    new = tuple(event for event in events if event.sequence > last)
    return replace(state, events=(*state.events, *new)[-MAX_EVENTS:]) if new else state


def on_greeting(state: State, role: str, tenant: str) -> State:
    """Who we are to the daemon."""
    return replace(state, role=role, tenant=tenant)


def on_catalog(state: State, models: Sequence[pb.ModelInfo]) -> State:
    """What could be loaded."""
    return replace(state, catalog=tuple(models))


def device_sample(device: pb.DeviceState, now_s: float) -> DeviceSample:
    has = device.HasField
    memory = None
    if has("memory_used_bytes") and device.memory_total_bytes:
        memory = device.memory_used_bytes / device.memory_total_bytes
    return DeviceSample(
        now_s,
        device.utilization if has("utilization") else None,
        memory,
        device.power_watts if has("power_watts") else None,
    )


def _recent(samples: tuple[S, ...], now_s: float) -> tuple[S, ...]:
    """Those of the last HISTORY_S; samples come in the order of time."""
    first = max(0, len(samples) - MAX_SAMPLES)
    while first < len(samples) - 1 and now_s - samples[first].at_s > HISTORY_S:
        first += 1
    return samples[first:]
