"""What a client holds of an answer while it comes in; the part that the two clients share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import inferd_pb2 as pb
from .errors import InferdError

FINISH_REASONS = {pb.STOP: "stop", pb.LENGTH: "length", pb.CANCELLED: "cancelled", pb.TOOL_CALLS: "tool_calls"}


@dataclass(slots=True)
class Logprob:
    token: int
    logprob: float
    text: str
    top: list[Logprob] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call: `index` in the answer; id and name come with its first piece."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(slots=True)
class ToolCall:
    """A call that the model made; `arguments` is JSON text, whole once the answer has ended well."""

    id: str
    name: str
    arguments: str


@dataclass(slots=True)
class Delta:
    """A piece of an answer. `index` is the position of its first token in the completion."""

    text: str
    tokens: list[int]
    index: int
    choice: int
    logprobs: list[Logprob]
    tool_calls: list[ToolCallDelta] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds; the first three count from the arrival of the request."""

    queue_ms: float
    ttft_ms: float
    e2e_ms: float
    tpot_ms: float
    itl_max_ms: float
    prefill_ms: float
    decode_ms: float
    draft_n: int = 0  # tokens that were guessed and computed before it was their turn
    draft_n_accepted: int = 0  # of those, the ones that came


@dataclass(frozen=True, slots=True)
class Ending:
    """How one choice ended."""

    finish_reason: str
    usage: Usage
    timings: Timings


class Answer:
    """The state of one generation, moved by the daemon's events."""

    def __init__(self, request: pb.GenerateRequest) -> None:
        self.request_id = request.request_id
        self.model = request.model
        self.device: str | None = None
        self.seed: int | None = None
        self.prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.queued: int | None = None  # requests before this one; None: it does not wait
        self.waits_for: str | None = None  # why, as in the contract's Queued: slot, load, room, ...
        self.eta_ms: tuple[float, float] | None = None  # to the first token: between these in 80 of 100 cases
        self.resumed = 0  # times it was moved or restarted without losing a token
        self.endings: dict[int, Ending] = {}  # by choice
        self._text: dict[int, list[str]] = {}
        self._calls: dict[int, dict[int, ToolCall]] = {}  # by choice and index
        self._cancelled = False

    @property
    def finish_reason(self) -> str | None:
        """stop, length, tool_calls or cancelled; None while it runs. Of the first choice, if there are several."""
        ending = self._first_ending()
        return ending.finish_reason if ending else "cancelled" if self._cancelled else None

    @property
    def usage(self) -> Usage | None:
        """Token counts once it is done; completions of several choices are added up."""
        first = self._first_ending()
        if first is None:
            return None
        completion = sum(ending.usage.completion_tokens for ending in self.endings.values())
        return Usage(first.usage.prompt_tokens, first.usage.cached_tokens, completion)

    @property
    def timings(self) -> Timings | None:
        ending = self._first_ending()
        return ending.timings if ending else None

    def text_so_far(self, choice: int = 0) -> str:
        """What has been received and read of one choice."""
        return "".join(self._text.get(choice, ()))

    @property
    def tool_calls(self) -> list[ToolCall]:
        """What has been received and read of the first choice's calls."""
        return self.tool_calls_so_far()

    def tool_calls_so_far(self, choice: int = 0) -> list[ToolCall]:
        """What has been received and read of one choice's calls."""
        return list(self._calls.get(choice, {}).values())

    def message(self, choice: int = 0) -> dict[str, Any]:
        """The answer as the next message of the chat that it belongs to; calls are in it once all are whole."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text_so_far(choice)}
        ending = self.endings.get(choice)
        if ending is not None and ending.finish_reason == "tool_calls":  # else the last call may be half of one
            message["tool_calls"] = self.tool_calls_so_far(choice)
        return message

    def take(self, event: pb.GenerateResponse) -> Delta | None:
        """Move by one event; a delta comes back as such."""
        return to_delta(event.delta) if self.note(event) else None

    def note(self, event: pb.GenerateResponse) -> bool:
        """Move by one event; True when it brings tokens."""
        kind = event.WhichOneof("event")
        if kind == "delta":
            delta = event.delta
            if text := delta.text:
                self._text.setdefault(delta.choice, []).append(text)
            if delta.tool_calls:
                self._on_calls(delta)
            return True
        if kind == "queued":
            self.request_id = event.queued.request_id or self.request_id
            self.queued, self.waits_for = event.queued.position, event.queued.why or None
            eta = event.queued
            self.eta_ms = (eta.eta_low_ms, eta.eta_high_ms) if eta.HasField("eta_high_ms") else None
        elif kind == "started":
            self._on_started(event.started)
        elif kind == "resumed":
            self.resumed += 1
        elif kind == "finished":
            self._on_finished(event.finished)
        return False

    def check_complete(self) -> None:
        """Called when the stream has ended well."""
        if not self.endings and not self._cancelled:
            raise InferdError("internal", "the answer ended without saying why")

    def _on_started(self, started: pb.Started) -> None:
        self.queued = self.waits_for = self.eta_ms = None
        self.request_id = started.request_id or self.request_id
        self.model = started.model or self.model
        self.device = started.device or None
        self.seed = started.seed
        self.prompt_tokens, self.cached_tokens = started.prompt_tokens, started.cached_tokens

    def _on_finished(self, finished: pb.Finished) -> None:
        self.queued = self.waits_for = None
        self.endings[finished.choice] = Ending(
            FINISH_REASONS.get(finished.finish_reason, "stop"),
            usage_of(finished.usage),
            timings_of(finished.timings),
        )

    def _on_calls(self, delta: pb.Delta) -> None:
        calls = self._calls.setdefault(delta.choice, {})
        for piece in delta.tool_calls:
            call = calls.setdefault(piece.index, ToolCall(piece.id, piece.name, ""))
            call.arguments += piece.arguments

    def _first_ending(self) -> Ending | None:
        return self.endings[min(self.endings)] if self.endings else None


def usage_of(wire: pb.Usage) -> Usage:
    return Usage(wire.prompt_tokens, wire.cached_tokens, wire.completion_tokens)


def timings_of(wire: pb.Timings) -> Timings:
    return Timings(
        wire.queue_ms,
        wire.ttft_ms,
        wire.e2e_ms,
        wire.tpot_ms,
        wire.itl_max_ms,
        wire.prefill_ms,
        wire.decode_ms,
        wire.draft_n,
        wire.draft_n_accepted,
    )


def to_delta(wire: pb.Delta) -> Delta:
    logprobs = [_logprob(entry) for entry in wire.logprobs] if wire.logprobs else []
    calls = [ToolCallDelta(c.index, c.id, c.name, c.arguments) for c in wire.tool_calls] if wire.tool_calls else []
    return Delta(wire.text, list(wire.tokens), wire.index, wire.choice, logprobs, calls)


def _logprob(wire: pb.Logprob) -> Logprob:
    return Logprob(wire.token, wire.logprob, wire.text, [_logprob(entry) for entry in wire.top])
