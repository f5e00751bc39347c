"""Who asks what (Request, frozen) and how far it has come (Job, owned by the Node)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from .errors import Code, InferdError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...backends.facts import Task
    from ...backends.messages import CallSyntax, ChatMessage, FinishReason, SamplingParams, ToolUse
    from ..policy.calls import CallParser
    from .form import Form
    from .inputs import Inputs
    from .tensors import Outputs, Tensors


# Columns of a recording of arrivals, which a replay reads: seconds since 1970, tokens, milliseconds.
RECORDING = ("at_s", "tenant", "priority", "model", "prompt_tokens", "output_tokens", "deadline_ms")


class Priority(Enum):
    """Classes of service. The order of the members is the order of service."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BATCH = "batch"


class Phase(Enum):
    QUEUED = "queued"
    RUNNING = "running"
    PARKING = "parking"  # cancelled in the worker, to be queued again when it says how far it came
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


NEXT: dict[Phase, set[Phase]] = {
    Phase.QUEUED: {Phase.RUNNING, Phase.CANCELLED, Phase.FAILED},
    Phase.RUNNING: {Phase.PARKING, Phase.DONE, Phase.CANCELLED, Phase.FAILED},
    Phase.PARKING: {Phase.QUEUED, Phase.DONE, Phase.CANCELLED, Phase.FAILED},
    Phase.DONE: set(),
    Phase.CANCELLED: set(),
    Phase.FAILED: set(),
}
TERMINAL = {phase for phase, following in NEXT.items() if not following}


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. Exactly one of `prompt`, `messages`, `tokens` (to go on with), `inputs` and `tensors` is set."""

    id: str
    model: str
    params: SamplingParams
    priority: Priority
    tenant: str
    prompt: str | None = None
    messages: Sequence[ChatMessage] | None = None
    tokens: Sequence[int] | None = None
    inputs: Inputs | None = None  # to embed or to rank
    tensors: Tensors | None = None
    max_tokens: int | None = None  # None: whatever the context leaves; 0: no text is wanted, but vectors
    deadline_ms: int | None = None  # from arrival
    session_id: str = ""
    run_id: str = ""
    supersede_key: str = ""
    form: Form | None = None  # None: any text
    tools: ToolUse | None = None
    lora: str = ""  # one of the model's adapters; "": none
    choice: int = 0  # 0..n-1 when one call asked for several completions
    parent_id: str = ""  # of choices after the first: the id that the client knows

    @property
    def generates(self) -> bool:
        """Text is wanted, token by token."""
        return self.inputs is None and self.tensors is None

    @property
    def task(self) -> Task:
        """What is wanted of the model."""
        if self.tensors is not None:
            return "infer"
        return "generate" if self.inputs is None else self.inputs.task

    @property
    def root_id(self) -> str:
        """One for all choices of a call."""
        return self.parent_id or self.id

    @property
    def tensor_bytes(self) -> int:
        return self.tensors.blob.n_bytes if self.tensors is not None else 0

    @property
    def prompt_bytes(self) -> int:
        """Of the text that is to become tokens; 0 when they came as such."""
        if self.inputs is not None:
            return self.inputs.n_bytes
        if self.messages is not None:
            said = sum(_n_bytes(text) for message in self.messages for text in message.texts)
            return said + sum(
                _n_bytes(text) for tool in (self.tools.tools if self.tools else ()) for text in tool.texts
            )
        return _n_bytes(self.prompt or "")


def _n_bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))


@dataclass(slots=True, eq=False)
class Job:
    """The life of one request inside the daemon."""

    request: Request
    arrived_s: float
    arrival: int  # a counter: ties between equal times are broken by it
    phase: Phase = Phase.QUEUED
    why: str = ""  # what it waits for, in the words of policy/turns.py: wait
    parked_why: str = ""  # why it lost its slot last: preempted, evicted, kv_full, device_lost, worker_crashed
    place: str = ""  # where it runs, or ran last
    crashes: int = 0  # of workers under it, since it last got a token
    ended_why: str = ""  # the code of the error that ended it
    attempt: int = 0
    cache_salt: str = ""  # what it has computed is shared with requests of the same salt
    prompt: Sequence[int] | None = None  # tokens, once prepared; of tensors only how many they count for
    grammar: str = ""  # its form as the worker understands it
    syntax: CallSyntax | None = None  # how its model writes tool calls
    calls: CallParser | None = None  # finds them in its text, of which it sees every piece once
    max_tokens: int = 0  # resolved against the context when prepared
    generated: list[int] = field(default_factory=list)
    durable: bool = False  # the disk keeps it: it goes on when the daemon starts again
    n_kept: int = 0  # of the generated tokens, those that an earlier daemon got
    lengths: list[int] = field(default_factory=list)  # of each input, in tokens; `prompt` is all of them
    seconds: list[int] = field(default_factory=list)  # where the second text of each begins; empty: they are no pairs
    offsets: list[int] = field(default_factory=list)  # of the tokens of the one text that is tagged
    vectors: list[bytes] = field(default_factory=list)  # of the first `n_embedded` inputs
    n_embedded: int = 0
    answer: Outputs | None = None  # tensors, complete but for the end of their request
    sent_bytes: int = 0
    cached_tokens: int = 0
    known_tokens: int = 0  # from its first one on: computed in an attempt that is over, by it or before it
    own_tokens: int = 0  # of those, at their end, what its attempts computed and nobody counted yet
    started_s: float | None = None  # first start in a worker
    first_token_s: float | None = None
    last_token_s: float | None = None
    itl_max_s: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    draft_n: int = 0
    draft_n_accepted: int = 0
    finish_reason: FinishReason | None = None
    announced: bool = False  # the client has been told that it started
    # Asked for with every token, so these are no properties.
    id: str = field(init=False)
    live: bool = field(init=False)  # not over yet

    def __post_init__(self) -> None:
        self.id, self.live = self.request.id, self.phase not in TERMINAL

    @property
    def reached(self) -> int:
        """Its prompt and all that it has got so far: tokens, or vectors."""
        return len(self.prompt or ()) + len(self.generated) + self.n_embedded

    def move(self, to: Phase) -> None:
        """Take one step of NEXT; anything else is our bug."""
        if to not in NEXT[self.phase]:
            raise AssertionError(f"{self.id}: {self.phase.value} -> {to.value}")
        self.phase = to
        self.live = to not in TERMINAL


# Field -> (lowest, highest, lowest is excluded). The one table of ranges; see docs in protos/inferd.proto.
RANGES: Mapping[str, tuple[float, float, bool]] = {
    "temperature": (0.0, 5.0, False),
    "top_p": (0.0, 1.0, True),
    "top_k": (0, 2**31 - 1, False),
    "min_p": (0.0, 1.0, False),
    "repeat_penalty": (0.0, 2.0, True),
    "presence_penalty": (-2.0, 2.0, False),
    "frequency_penalty": (-2.0, 2.0, False),
    "logprobs": (0, 20, False),
    "min_tokens": (0, 2**31 - 1, False),
    "n": (1, 8, False),
    "max_tokens": (1, 2**31 - 1, False),
    "deadline_ms": (1, 2**31 - 1, False),
}
MAX_STOPS, MAX_STOP_BYTES, MAX_BIASES, MAX_BIAS = 16, 256, 1024, 100.0
MAX_MESSAGES, MAX_ID_CHARS = 1024, 128


def plain(value: float) -> str:
    """A figure for people that is never rounded onto the limit beside it."""
    return str(value).removesuffix(".0")


def check_range(name: str, value: float) -> None:
    """Raise INVALID naming the field and its limits when `value` is outside RANGES or not finite."""
    lowest, highest, open_end = RANGES[name]
    inside = math.isfinite(value) and (lowest < value if open_end else lowest <= value) and value <= highest
    if not inside:
        left = "(" if open_end else "["
        raise InferdError(
            Code.INVALID,
            f"{name} must be in {left}{plain(lowest)}, {plain(highest)}], not {plain(value)}",
            field=name,
            lowest=lowest,
            highest=highest,
        )


def check_stop(stop: Sequence[str]) -> None:
    """At most MAX_STOPS strings of 1..MAX_STOP_BYTES bytes each."""
    if len(stop) > MAX_STOPS:
        message = f"stop takes at most {MAX_STOPS} strings, not {len(stop)}"
        raise InferdError(Code.INVALID, message, field="stop", highest=MAX_STOPS)
    for i, text in enumerate(stop):
        n_bytes = len(text.encode("utf-8"))
        if not 1 <= n_bytes <= MAX_STOP_BYTES:
            message = f"stop[{i}] must have 1 to {MAX_STOP_BYTES} bytes, not {n_bytes}"
            raise InferdError(Code.INVALID, message, field=f"stop[{i}]", highest=MAX_STOP_BYTES)


def check_logit_bias(bias: Mapping[int, float]) -> None:
    """At most MAX_BIASES finite values of -MAX_BIAS..MAX_BIAS; token ids are checked against the vocabulary later."""
    if len(bias) > MAX_BIASES:
        message = f"logit_bias takes at most {MAX_BIASES} tokens, not {len(bias)}"
        raise InferdError(Code.INVALID, message, field="logit_bias", highest=MAX_BIASES)
    for token, value in bias.items():
        if not (math.isfinite(value) and abs(value) <= MAX_BIAS):
            message = f"logit_bias[{token}] must be in [-{MAX_BIAS:g}, {MAX_BIAS:g}], not {plain(value)}"
            raise InferdError(Code.INVALID, message, field=f"logit_bias[{token}]", highest=MAX_BIAS)


def check_tokens(name: str, tokens: Sequence[int], n_vocab: int) -> None:
    """Every id must exist in a vocabulary of `n_vocab` words."""
    if not tokens or (min(tokens) >= 0 and max(tokens) < n_vocab):  # there may be millions
        return
    i, token = next((i, token) for i, token in enumerate(tokens) if not 0 <= token < n_vocab)
    message = f"{name}[{i}] is {token}, but the model has tokens 0 to {n_vocab - 1}"
    raise InferdError(Code.INVALID, message, field=f"{name}[{i}]", highest=n_vocab - 1)


def check_bias_tokens(bias: Mapping[int, float], n_vocab: int) -> None:
    """Every token that is biased must exist in a vocabulary of `n_vocab` words."""
    for token in bias:
        if token >= n_vocab:
            message = f"logit_bias[{token}]: the model has tokens 0 to {n_vocab - 1}"
            raise InferdError(Code.INVALID, message, field=f"logit_bias[{token}]", highest=n_vocab - 1)
