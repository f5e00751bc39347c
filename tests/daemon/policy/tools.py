"""Jobs, lanes and a scheduler to test the rules with: no clock, no loop, no process."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import msgspec

from inferd.backends.messages import SamplingParams
from inferd.daemon.domain.config import Config, Queue, Turns
from inferd.daemon.domain.decision import Load, Preempt, Reject, Start
from inferd.daemon.domain.request import Job, Priority, Request
from inferd.daemon.policy.ledger import Ledger
from inferd.daemon.policy.scheduler import Scheduler

if TYPE_CHECKING:
    from inferd.daemon.domain.decision import Decision

CHAT, NORMAL, BATCH = Priority.INTERACTIVE, Priority.NORMAL, Priority.BATCH
FOREVER = math.inf
_ids = itertools.count()


def job(
    priority: Priority = NORMAL,
    model: str = "m",
    tenant: str = "t",
    n_prompt: int | None = 10,
    *,
    arrived_s: float = 0.0,
    max_tokens: int | None = 100,
    tokens: list[int] | None = None,
    **fields: Any,
) -> Job:
    """A job that is prepared, unless `n_prompt` is None; with `tokens` as its prompt, if given."""
    n = next(_ids)
    request = Request(
        f"r{n}", model, SamplingParams(max_tokens=8), priority, tenant, prompt="x" * 40, max_tokens=max_tokens, **fields
    )
    prompt = tokens or (None if n_prompt is None else [1] * n_prompt)
    return Job(request, arrived_s=arrived_s, arrival=n, prompt=prompt, max_tokens=max_tokens or 100)


def scheduler(
    host_bytes: int = 100, max_requests: int = 100, per_tenant: int = 100, *, queue: Any = None, **turns: Any
) -> Scheduler:
    """One machine with room for two of the models `m` and `other`, which take 50 bytes each."""
    ledger = Ledger()
    ledger.add_pool("host", host_bytes, 0)
    limits = queue or Queue(max_requests=max_requests, max_requests_per_tenant=per_tenant)
    it = Scheduler(ledger, Config(queue=limits, scheduler=Turns(**{"min_resident_s": 0.0, **turns})))
    add(it, "m", {"host": 50}, 10.0)
    add(it, "other", {"host": 50}, -1.0)
    return it


def add(it: Scheduler, name: str, bytes_on: dict[str, int], keep_alive_s: float = 10.0, **options: Any) -> None:
    """A model with one place."""
    it.add_model(name, keep_alive_s, **options)
    it.add_place(name, name, bytes_on)


def ready(slots: int = 1, kv_cells: int = 100_000, *, shares_prefixes: bool = False, **options: Any) -> Scheduler:
    """`m` is loaded."""
    it = scheduler(**options)
    load(it, "m", slots=slots, kv_cells=kv_cells)
    it.places["m"].shares_prefixes = shares_prefixes
    return it


def load(it: Scheduler, name: str, now_s: float = 0.0, *, slots: int = 1, kv_cells: int = 100_000) -> None:
    """Have a model loaded that fits."""
    assert it.on_load(name, now_s) == [Load(name)]
    reserve(it, name)
    it.on_ready(name, slots, kv_cells, 0.1, now_s)


def reserve(it: Scheduler, name: str) -> None:
    """What the Node does with Load."""
    it.rooms.ledger.reserve(name, it.places[name].bytes_on)


def pace(it: Scheduler, model: str = "m", *, prefill_ms: float = 0.0, decode_ms: float = 1.0) -> None:
    """As if requests had been measured: milliseconds a token in a slot."""
    lane = it.lanes[model].pace
    lane.prefill_ms.value, lane.decode_ms.value = prefill_ms, decode_ms
    for interval in (*lane.first_token.values(), lane.finish):
        for _ in range(200):
            interval.add(1.0, 1.0)


def started(decisions: list[Decision]) -> list[Job]:
    return [decision.job for decision in decisions if isinstance(decision, Start)]


def preempted(decisions: list[Decision]) -> list[Job]:
    return [decision.job for decision in decisions if isinstance(decision, Preempt)]


def rejected(decisions: list[Decision]) -> list[tuple[Job, str]]:
    return [(d.job, str(d.error.details.get("reason", d.error.code.value))) for d in decisions if isinstance(d, Reject)]


def as_json(value: Any) -> Any:
    """Through JSON and back, as a record on disk would be."""
    return msgspec.json.decode(msgspec.json.encode(value))
