"""All live jobs and their streams: what worker events do to a job, and what its reader is told."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

from ...backends.messages import FinishReason
from ..domain.errors import Code, InferdError
from ..domain.request import Job, Phase
from ..domain.tensors import Outputs
from ..policy.tenants import Tenants
from .figures import Statistics
from .stream import Finished, Queued, Resumed, Started, Stream, Vectors
from .tape import Tape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ...backends import messages
    from ...backends.blob import Blob
    from ..domain.durable import Kept
    from ..domain.request import Request
    from ..policy.line import Ticket
    from ..policy.meter import Meter


MAX_CRASHES = 2  # of workers under a request that got no token in between


class Jobs:
    """The table of jobs. A job stays until it is over and its worker has let go of it."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.on_over: Callable[[Job], None] | None = None
        self._jobs: dict[str, Job] = {}
        self.get = self._jobs.get  # by id; asked for with every token, so it is not a method of ours
        self._streams: dict[str, Stream] = {}
        self._arrivals = itertools.count()
        self.statistics = Statistics()
        self.tenants = Tenants()
        self._read: set[Stream] = set()  # streams that somebody reads, also after the job is over

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def add(self, request: Request, now_s: float, kept: Kept | None = None) -> tuple[Job, Stream]:
        """`kept`: its answer is kept on the disk, and goes on from there. Raises InferdError when the id is in use."""
        if request.id in self._jobs:
            raise InferdError(Code.INVALID, f"request_id {request.id} is in use", field="request_id")
        job = Job(request, now_s, next(self._arrivals))
        if request.tensors is not None:
            job.prompt = range(request.tensors.n_tokens)
        stream = Stream(job) if kept is None else Tape(job, kept)
        if kept is not None:
            job.durable, job.generated, job.n_kept = True, list(kept.tokens), len(kept.tokens)
        self._jobs[job.id], self._streams[job.id] = job, stream
        self._read.add(stream)
        self.tenants.on_request(request.tenant, now_s)
        return job, stream

    def called(self, request_id: str, tenant: str | None = None) -> list[Job]:
        """The jobs that a client means by an id: all choices of its call. `tenant`: only those of this one."""
        return [
            job
            for job in self._jobs.values()
            if request_id in (job.id, job.request.parent_id) and tenant in (None, job.request.tenant)
        ]

    def turned_away(self, tenant: str, now_s: float) -> None:
        """It was refused at the door, and is no job."""
        self.meter.total.requests_refused += 1
        self.tenants.on_refused(tenant, now_s)

    def forget(self, job: Job) -> None:
        """The job is over and holds no slot."""
        if self._jobs.get(job.id) is job:
            self._settle(job)
            del self._jobs[job.id], self._streams[job.id]
            if job.answer is not None:  # nobody has taken it
                job.answer.blob.close()
            self.tenants.on_over(job.request.tenant, len(job.generated) - job.n_kept)
            self.statistics.on_over(job)
            if self.on_over is not None:
                self.on_over(job)

    def hung_up(self, stream: Stream) -> None:
        """Nobody reads the stream any more."""
        self._read.discard(stream)

    def stalled(self, now_s: float, limit_s: float) -> list[Stream]:
        """Streams whose reader stands still."""
        return [stream for stream in self._read if stream.stalled_s(now_s) > limit_s]

    def stalled_s(self, job: Job, now_s: float) -> float:
        """How long the reader of a job that is not forgotten has taken nothing."""
        return self._streams[job.id].stalled_s(now_s)

    def tokens_by_tenant(self) -> Counter[str]:
        """Generated here, of all jobs that are here."""
        n_tokens: Counter[str] = Counter()
        for job in self._jobs.values():
            n_tokens[job.request.tenant] += len(job.generated) - job.n_kept
        return n_tokens

    def tell_queued(self, job: Job, position: int, eta_ms: tuple[float, float] | None = None) -> None:
        self._streams[job.id].push(Queued(job.id, position, job.why, eta_ms))

    # what happens to a job

    def started(self, job: Job, event: messages.Started, device: str) -> None:
        stream = self._streams[job.id]
        self._lose(job, event.cached_tokens, job.parked_why)
        job.known_tokens = event.cached_tokens
        if job.announced:
            return stream.push(Resumed(job.parked_why))
        job.announced = True
        job.cached_tokens = min(event.cached_tokens, event.prompt_tokens)
        self.meter.total.prompt_tokens += event.prompt_tokens
        self.meter.total.prompt_tokens_cached += job.cached_tokens
        self.tenants.of(job.request.tenant).prompt_tokens += event.prompt_tokens
        request = job.request
        seed = request.params.seed
        news = Started(job.id, request.model, event.prompt_tokens, job.cached_tokens, device, seed)
        return stream.push(news)

    def grown(self, job: Job, event: messages.Delta, now_s: float) -> None:
        """The token path: count, remember, pass on."""
        if job.last_token_s is None:
            job.first_token_s = now_s
            self.meter.ttft_ms.append((now_s - job.arrived_s) * 1e3)
        elif now_s - job.last_token_s > job.itl_max_s:
            job.itl_max_s = now_s - job.last_token_s
        job.last_token_s = now_s
        job.generated += event.tokens
        text = event.text
        job.sent_bytes += len(text) if text.isascii() else len(text.encode())
        self.meter.on_tokens(job.place, len(event.tokens))
        if job.calls is None:
            self._streams[job.id].push_text(event.index, text, event.tokens, event.logprobs)
        else:
            said, calls = job.calls.feed(text)
            self._streams[job.id].push_text(event.index, said, event.tokens, event.logprobs, calls)

    def embedded(self, job: Job, event: messages.Embedded) -> None:
        """The next vectors; the reader gets them all at the end."""
        job.vectors.append(event.vectors)
        job.n_embedded += event.n

    def inferred(self, job: Job, event: messages.Inferred, blob: Blob) -> None:
        """Its tensors are there; the reader gets them with the end."""
        if job.answer is not None:
            job.answer.blob.close()
        job.answer = Outputs(event.outputs, blob)

    def finished(self, job: Job, event: messages.Finished, now_s: float) -> None:
        if event.reason is FinishReason.ERROR:
            code = Code.INVALID if event.error_field else Code.MODEL_FAILED
            message = f"{job.request.model}: {event.error}"
            return self.failed(job, InferdError(code, message, field=event.error_field or None))
        job.move(Phase.DONE)
        text, calls = (event.text, None) if job.calls is None else job.calls.feed(event.text, last=True)
        whole = event.reason is FinishReason.STOP and job.calls is not None and job.calls.n_whole > 0
        job.finish_reason = FinishReason.TOOL_CALLS if whole else event.reason
        job.prefill_ms += event.prefill_ms
        job.decode_ms += event.decode_ms
        self.meter.total.requests_finished += 1
        self.tenants.of(job.request.tenant).finished += 1
        stream = self._streams[job.id]
        if text or calls:
            stream.push_text(len(job.generated), text, (), None, calls)
        if job.request.inputs is not None:
            stream.push(Vectors(job.n_embedded, b"".join(job.vectors)))
        if job.answer is not None:
            stream.push(job.answer)
            job.answer = None
        ended = summary(job, event.completion_tokens, now_s)
        if ended.completion_tokens > 1:
            self.meter.tpot_ms.append(ended.tpot_ms)
        stream.push(ended)
        return stream.close()

    def attempt_over(self, job: Job, n_computed: int) -> None:
        """The worker has let go of it; whether the next attempt computes all that again is seen when it starts."""
        self.meter.total.computed_tokens += n_computed
        job.known_tokens += n_computed
        job.own_tokens += n_computed

    def drafts(self, job: Job, draft_n: int, accepted_n: int) -> None:
        """What an attempt computed ahead of its turn."""
        job.draft_n += draft_n
        job.draft_n_accepted += accepted_n
        if wrong := draft_n - accepted_n:
            self.meter.total.computed_tokens += wrong
            self.meter.on_wasted(wrong, "draft")

    def attempt_lost(self, job: Job, start_tokens: int) -> None:
        """Its worker is gone and tells nothing: what has led to the tokens of this attempt was surely computed."""
        if not job.request.generates:
            n_known = sum(job.lengths[: job.n_embedded])
            return self.attempt_over(job, max(0, n_known - job.known_tokens))  # it may have been cut off within one
        n_tokens = len(job.prompt or ()) + len(job.generated)
        if n_tokens > start_tokens:
            self.attempt_over(job, n_tokens - 1 - job.known_tokens)

    def on_crash(self, running: Mapping[Job, Ticket]) -> list[Job]:
        """Their worker ended by itself. Returns those that it may have died of: they are not tried again.

        These got no token between two such ends; and where some of them never got any, it is only those.
        """
        for job, ticket in running.items():
            progressed = job.reached > ticket.start_tokens
            job.crashes = 1 if progressed else job.crashes + 1
        suspects = [job for job in running if job.live and job.crashes >= MAX_CRASHES]
        return [job for job in suspects if not (job.generated or job.n_embedded)] or suspects

    def _settle(self, job: Job) -> None:
        """It is over: what it computed was delivered, or is wasted."""
        if job.phase is not Phase.DONE:
            # The last token that was delivered has been drawn, not computed.
            self._lose(job, len(job.prompt or ()) + len(job.generated) - 1 if job.generated else 0, job.ended_why)
        self.meter.total.delivered_tokens += job.own_tokens

    def _lose(self, job: Job, n_kept: int, why: str) -> None:
        """Of what it computed so far, only what is among its first `n_kept` tokens is of use."""
        n_lost = min(job.own_tokens, job.known_tokens - n_kept)
        if n_lost > 0:
            job.own_tokens -= n_lost
            self.meter.on_wasted(n_lost, why)

    def failed(self, job: Job, error: InferdError) -> None:
        job.move(Phase.FAILED)
        job.ended_why = error.code.value
        self.meter.total.requests_failed += 1
        self.tenants.of(job.request.tenant).failed += 1
        self._streams[job.id].close(error)

    def refused(self, job: Job, error: InferdError) -> None:
        """It had come in, and was sent away: nothing was wrong with it, so it has not failed."""
        job.move(Phase.FAILED)
        job.ended_why = error.code.value
        self.meter.total.requests_refused += 1
        self.tenants.of(job.request.tenant).refused += 1
        self._streams[job.id].close(error)

    def cancelled(self, job: Job, error: InferdError | None = None) -> None:
        error = error or InferdError(Code.CANCELLED, "the request was cancelled")
        job.move(Phase.CANCELLED)
        job.ended_why = error.code.value
        self.meter.total.requests_cancelled += 1
        self.tenants.of(job.request.tenant).cancelled += 1
        self._streams[job.id].close(error)


def summary(job: Job, completion_tokens: int, now_s: float) -> Finished:
    """Usage and timings of a finished job. TPOT is the mean over the tokens after the first."""
    started_s = job.started_s if job.started_s is not None else now_s
    first_s = job.first_token_s if job.first_token_s is not None else now_s
    last_s = job.last_token_s if job.last_token_s is not None else now_s
    assert job.finish_reason is not None
    return Finished(
        reason=job.finish_reason,
        prompt_tokens=len(job.prompt or ()),
        cached_tokens=job.cached_tokens,
        completion_tokens=completion_tokens,
        queue_ms=(started_s - job.arrived_s) * 1e3,
        ttft_ms=(first_s - job.arrived_s) * 1e3,
        tpot_ms=(last_s - first_s) * 1e3 / max(1, completion_tokens - 1),
        itl_max_ms=job.itl_max_s * 1e3,
        e2e_ms=(now_s - job.arrived_s) * 1e3,
        prefill_ms=job.prefill_ms,
        decode_ms=job.decode_ms,
        draft_n=job.draft_n,
        draft_n_accepted=job.draft_n_accepted,
    )
