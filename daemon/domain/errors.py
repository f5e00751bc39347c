"""The closed list of failures. Knows no protocol: doors translate."""

from __future__ import annotations

from enum import Enum


class Code(Enum):
    """Why something was refused or failed; the value is the reason clients see."""

    INVALID = "invalid"  # the caller's field is wrong; `field` names it
    NOT_FOUND = "not_found"
    UNAUTHENTICATED = "unauthenticated"  # a token is missing, wrong, revoked or past its time
    PERMISSION_DENIED = "permission_denied"  # the caller's role is not enough; `needs` names the one that is
    PROMPT_TOO_LONG = "prompt_too_long"
    TOO_LARGE = "too_large"  # the message as a whole
    UNSUPPORTED = "unsupported"  # known to the contract, not to this version or this model
    TEMPLATE_FAILED = "template_failed"  # the model's chat template does not render
    MODEL_CORRUPT = "model_corrupt"
    MODEL_FAILED = "model_failed"  # it does not load, or is in back-off after a failure
    PULL_FAILED = "pull_failed"  # the hub does not give it, or the folder for models does not take it
    NO_ROOM = "no_room"  # memory: needed and free bytes are in the details
    NO_DISK = "no_disk"  # the disk is full, or failed: nothing can be kept on it now
    QUEUE_FULL = "queue_full"
    OVERLOADED = "overloaded"  # it could not be served in time, or the machine is short of memory; `reason` says which
    SUPERSEDED = "superseded"  # a newer request with the same supersede_key took its place
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    SLOW_CONSUMER = "slow_consumer"
    WORKER_CRASHED = "worker_crashed"
    WORKER_OOM = "worker_oom"  # it took more memory than it may have, and the kernel ended it
    NO_SANDBOX = "no_sandbox"  # `workers.sandbox` asks for what this kernel has not
    SHUTTING_DOWN = "shutting_down"
    DRAINING = "draining"  # an operator lets nothing new in for now
    BAD_CONFIG = "bad_config"  # it cannot be taken over; the one in force stays
    INTERNAL = "internal"


class InferdError(Exception):
    """A failure fit for a client: one sentence, the field or limits it names, and when to come back."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        field: str | None = None,
        retry_after_ms: int | None = None,
        **details: int | float | str,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.retry_after_ms = retry_after_ms
        self.details = details
