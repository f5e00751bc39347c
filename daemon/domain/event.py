"""What happened, in the words that monitors and operators see."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """The order of the members is that of how much they matter."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Kind(Enum):
    """That a request came, started or ended well is none: there are thousands of them, and counters in the Snapshot."""

    DAEMON_STARTED = "daemon_started"
    DAEMON_STOPPING = "daemon_stopping"
    DRAINING = "draining"  # no new request is taken in
    SERVING = "serving"  # again
    MODEL_LOADING = "model_loading"
    MODEL_READY = "model_ready"
    MODEL_FAILED = "model_failed"  # to load
    MODEL_EVICTED = "model_evicted"  # told to make way for another one
    MODEL_UNLOADED = "model_unloaded"
    MODEL_PULLED = "model_pulled"  # from the hub, verified and in its place
    PULL_FAILED = "pull_failed"
    ALIAS = "alias"  # a name was given to a model, or taken away
    OUT_OF_MEMORY = "out_of_memory"  # a load, which is tried once more; or a worker that took more than it may have
    WORKER_CRASHED = "worker_crashed"
    PREEMPTED = "preempted"  # a request makes way for another one
    RESUMED = "resumed"  # it goes on where it stopped
    REFUSED = "refused"  # a request, at the door or later
    CANCELLED = "cancelled"  # a request, by its id; not that its client left
    DEADLINE_MISSED = "deadline_missed"
    SLOW_CONSUMER = "slow_consumer"  # its stream was cut
    PRIORITY_CHANGED = "priority_changed"
    CONFIG_RELOADED = "config_reloaded"
    CONFIG_REFUSED = "config_refused"  # one that was read again; the one in force stays
    SCHEDULER_STALLED = "scheduler_stalled"  # requests that could be served are not
    SCHEDULER_RECOVERED = "scheduler_recovered"
    PINNED = "pinned"
    UNPINNED = "unpinned"
    DEVICE_LOST = "device_lost"
    PRESSURE = "pressure"  # on the machine's memory: the daemon does less, or as before
    DISK = "disk"  # it refused


@dataclass(frozen=True, slots=True)
class Event:
    """`sequence` grows with every event, also over restarts of the daemon."""

    sequence: int
    unix_s: float
    severity: Severity
    kind: Kind
    message: str  # one sentence
    model: str = ""  # what it is about, where it is about such
    request_id: str = ""
    tenant: str = ""
    device: str = ""
