"""Which failures do not end a job that was taken in: it is submitted again, alone or with all of its group."""

from __future__ import annotations

from ..domain.errors import Code, InferdError

LATER = {Code.QUEUE_FULL, Code.OVERLOADED, Code.DRAINING, Code.SHUTTING_DOWN}
AILMENTS = {Code.NO_ROOM, Code.MODEL_FAILED}  # of a model, which may pass: when they say when to come back
OF_ALL = {"pressure", "shed"}  # reasons of OVERLOADED that are not those of one request
PATIENCE_S = 300.0  # so long a model may fail, or find no memory, at each try
FORGET_S = 120.0  # after so long without a try it is another story


class Later:
    """Remembers since when models fail."""

    def __init__(self) -> None:
        self._ails: dict[str, tuple[float, float]] = {}  # by model: since when, and when it was tried last

    def is_for_now(self, error: InferdError, model: str, now_s: float) -> bool:
        """It will be let in when that is over: a full queue, a model that rests or has no room, an id that is live."""
        if error.code in LATER or error.field == "request_id":
            return True
        if error.code not in AILMENTS or error.retry_after_ms is None:
            return False
        since_s, last_s = self._ails.get(model, (now_s, now_s))
        if now_s > last_s + FORGET_S:
            since_s = now_s
        self._ails[model] = since_s, now_s
        return now_s < since_s + PATIENCE_S

    def is_well(self, model: str) -> None:
        """It answers."""
        self._ails.pop(model, None)


def is_alone(error: InferdError) -> bool:
    """Only this job is not let in now: its id is live, or what it was promised cannot be kept. The next one may be."""
    if error.code is Code.OVERLOADED:
        return error.details.get("reason") not in OF_ALL
    return error.field == "request_id"
