"""supersede_key: the newest request of a key takes the place of the older ones (the last keystroke is what counts)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..domain.decision import Cancel
from ..domain.errors import Code, InferdError

if TYPE_CHECKING:
    from ..domain.request import Job

Key = tuple[str, str, str]  # tenant, model, supersede_key


class Keys:
    """A new request waits until the older one has let go of its slot, so that a burst computes two prompts, not all."""

    def __init__(self) -> None:
        self._newest: dict[Key, list[Job]] = {}  # the choices of one call
        self._holding: dict[Key, set[Job]] = {}  # with a slot

    def arrive(self, job: Job) -> list[Cancel]:
        """The new job counts from now on; the older ones are to end."""
        if not job.request.supersede_key:
            return []
        key, older = _key(job), []
        newest = self._newest.get(key, [])
        if newest and newest[0].request.root_id != job.request.root_id:
            older, newest = newest, []
        self._newest[key] = [*newest, job]
        error = InferdError(Code.SUPERSEDED, "a newer request with the same supersede_key took its place")
        return [Cancel(old, error) for old in older]

    def start(self, job: Job) -> None:
        """It got a slot."""
        if job.request.supersede_key:
            self._holding.setdefault(_key(job), set()).add(job)

    def blocked(self, job: Job) -> bool:
        """Whether a job that it supersedes still holds a slot."""
        if not job.request.supersede_key:
            return False
        return any(other.request.root_id != job.request.root_id for other in self._holding.get(_key(job), ()))

    def let_go(self, job: Job) -> list[Job]:
        """Its slot is free; those who may be picked because of that."""
        if not job.request.supersede_key:
            return []
        key = _key(job)
        holding = self._holding.get(key, set())
        holding.discard(job)
        if not holding:
            self._holding.pop(key, None)
        return [other for other in self._newest.get(key, ()) if not self.blocked(other)]

    def forget(self, job: Job) -> None:
        """It is over."""
        if job.request.supersede_key and job in (newest := self._newest.get(_key(job), [])):
            newest.remove(job)
            if not newest:
                del self._newest[_key(job)]


def _key(job: Job) -> Key:
    return job.request.tenant, job.request.model, job.request.supersede_key
