"""Every message that crosses the process wall, and the words inside it.

Frames carry msgpack arrays, tagged with a short string; both ends know the whole list, so a frame of an unknown
kind is a bug and ends the worker. A job is named by (job, attempt): frames of an older attempt do not exist for
the reader.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

import msgspec

from .amounts import Amount, Count, CountLists, TokenId, TokenLists
from .calls import MAX_LEAD as MAX_LEAD
from .calls import CallSyntax as CallSyntax
from .calls import Tool as Tool
from .calls import ToolCall as ToolCall
from .calls import ToolUse as ToolUse
from .facts import LoadPlan
from .runs import Dropped as Dropped
from .runs import Fetch as Fetch
from .runs import Given as Given
from .runs import Kept as Kept
from .runs import Run as Run
from .runs import Stored as Stored
from .tensors import Call as Call
from .tensors import Infer as Infer
from .tensors import Inferred as Inferred
from .tensors import Tensor as Tensor


class FinishReason(Enum):
    """Why a generation ended, in OpenAI's words where they have one."""

    STOP = "stop"  # end of generation token or a stop string
    LENGTH = "length"  # max_tokens or the context is used up
    CANCELLED = "cancelled"
    TOOL_CALLS = "tool_calls"  # said by the daemon: as STOP, and the answer holds a call
    ERROR = "error"


FormatKind = Literal["json_object", "json_schema", "grammar"]


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are drawn. Ranges are checked in the daemon (daemon/domain/request.py) before they come here."""

    max_tokens: int
    temperature: float = 0.8  # 0 is greedy
    top_p: float = 0.95
    top_k: int = 40  # 0 keeps the whole vocabulary
    min_p: float = 0.05
    repeat_penalty: float = 1.0  # over the last 64 tokens, llama.cpp's default window
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0  # token i draws with a seed derived from (seed, i)
    logit_bias: dict[int, float] = msgspec.field(default_factory=dict)
    logprobs: int | None = None  # alternatives per token; 0 gives only the chosen one's
    ignore_eos: bool = False
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    grammar: str = ""  # what Compiled said; ""  lets every token come
    calls: CallSyntax | None = None  # what Compiled said of tool calls


# daemon -> worker


class Load(msgspec.Struct, frozen=True, array_like=True, tag="load"):
    """First message to a worker or a prompt helper."""

    plan: LoadPlan


class Submit(msgspec.Struct, frozen=True, array_like=True, tag="submit"):
    """Run this. `tokens` = prompt + what an earlier attempt generated; tokens after `n_prompt` are fed through
    penalties, UTF-8 and stop scanning again, and only text after `sent_bytes` is emitted."""

    job: str
    attempt: int
    tokens: list[int]
    n_prompt: int
    params: SamplingParams
    rank: int = 0  # when KV is short the lowest rank is parked first
    sent_bytes: int = 0
    itl_target_ms: float = 0.0  # the gap between two tokens that prompts may cause; 0: the engine chooses
    cache_salt: str = ""  # computed prompts are shared between requests with the same one, and the same adapter
    lora: str = ""  # one of the plan's adapters; "": the model as it is
    keep_s: float = 0.0  # for so long after its end others make way before what it has computed


class Embed(msgspec.Struct, frozen=True, array_like=True, tag="embed"):
    """Make a vector of each input, in order; with a model that ranks, of one value: its score. What an earlier attempt
    told is not among them."""

    job: str
    attempt: int
    inputs: list[list[int]]  # tokens of each
    normalize: bool = True  # to a length of 1
    dimensions: int = 0  # the first so many values of each; 0: all
    rank: int = 0  # the highest is computed first
    known_tokens: int = 0  # of the inputs that an earlier attempt told
    seconds: list[int] = []  # where the second text of each pair begins; empty: they are no pairs
    due_s: float = 0.0  # see Infer
    salt: str = ""


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """Stop (job, attempt); always answered by Stopped, or by a Finished that was already on its way."""

    job: str
    attempt: int


class Cores(msgspec.Struct, frozen=True, array_like=True, tag="cores"):
    """Compute with so many threads from the next step on: other workers want the cores, too, or no longer do."""

    n_threads: int


class Stop(msgspec.Struct, frozen=True, array_like=True, tag="stop"):
    """Close the engine and exit 0."""


# daemon -> prompt helper


class ChatMessage(msgspec.Struct, frozen=True):
    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """All that a prompt may hold of it."""
        return self.content, *(call.arguments for call in self.tool_calls)


class Prepare(msgspec.Struct, frozen=True, array_like=True, tag="prepare"):
    """Turn chat messages (rendered by the model's template) or a plain prompt into tokens."""

    id: str
    messages: list[ChatMessage] | None = None
    prompt: str | None = None
    add_special: bool = True  # add the model's BOS/EOS where it says so
    parse_special: bool = True  # "<|im_end|>" in the text becomes that control token
    tools: tuple[Tool, ...] = ()


class PrepareInputs(msgspec.Struct, frozen=True, array_like=True, tag="prepare_inputs"):
    """Turn texts into tokens, each by itself; with a query each becomes the pair that a model which ranks reads."""

    id: str
    texts: list[str]
    query: str | None = None
    offsets: bool = False  # where each token is in its text is wanted, too


class PreparedInputs(msgspec.Struct, frozen=True, array_like=True, tag="prepared_inputs"):
    id: str
    inputs: TokenLists
    seconds: list[Count] = []  # where the second text of each pair begins, if the model wants to be told
    offsets: CountLists = []  # of each: first character and the one after the last, token by token; 0, 0: a mark


class Compile(msgspec.Struct, frozen=True, array_like=True, tag="compile"):
    """Make of a form that answers are to have what the worker understands."""

    id: str
    kind: FormatKind
    text: str  # a JSON schema, or GBNF


class CompileTools(msgspec.Struct, frozen=True, array_like=True, tag="compile_tools"):
    """Make of tools what the worker understands, in the way the model writes calls."""

    id: str
    use: ToolUse


class Compiled(msgspec.Struct, frozen=True, array_like=True, tag="compiled"):
    id: str
    grammar: str
    calls: CallSyntax | None = None


class Prepared(msgspec.Struct, frozen=True, array_like=True, tag="prepared"):
    id: str
    tokens: list[TokenId]


class PrepareFailed(msgspec.Struct, frozen=True, array_like=True, tag="prepare_failed"):
    id: str
    code: Literal["template", "no_template", "limit", "tokenize", "grammar", "unsupported"]
    message: str
    field: str = ""  # of the request, where it is more than what was asked about


# worker -> daemon


class Loading(msgspec.Struct, frozen=True, array_like=True, tag="loading"):
    progress: float  # 0..1


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    n_ctx: Count  # tokens one request may use
    n_slots: Count
    kv_cells: Count
    n_vocab: Count
    device: str  # "CPU", or what llama.cpp calls the device
    load_ms: float
    buffers: dict[str, int]  # llama.cpp's own buffer-size lines: "CPU model" -> bytes
    shares_prefixes: bool = False  # what requests with one cache_salt begin with is computed and kept once
    fingerprint: str = ""  # all that decides whether computed blocks fit, but for the file; "": none are kept
    cage: str = ""  # how far it holds: "landlock 7, seccomp", "none", "off"; "": nobody has said


class LoadFailed(msgspec.Struct, frozen=True, array_like=True, tag="load_failed"):
    code: Literal["corrupt", "memory", "unsupported", "sandbox", "error"]
    message: str


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    token: TokenId
    logprob: float
    text: str
    top: list[tuple[TokenId, float, str]] = []  # (token, logprob, text), best first


class Started(msgspec.Struct, frozen=True, array_like=True, tag="started"):
    """The first prompt token of this attempt is about to be computed."""

    job: str
    attempt: int
    prompt_tokens: Count
    cached_tokens: Count  # of the prompt and what was generated before, those that were computed already


class Delta(msgspec.Struct, frozen=True, array_like=True, tag="delta"):
    """New tokens of a job. `text` may be empty while a code point or a stop string is undecided."""

    job: str
    attempt: int
    index: Count  # position of tokens[0] in the completion
    tokens: list[TokenId]
    text: str
    logprobs: list[TokenLogprob] | None = None


class Embedded(msgspec.Struct, frozen=True, array_like=True, tag="embedded"):
    """The vectors of a job's next `n` inputs: 32-bit floats in the machine's order, one vector after the other."""

    job: str
    attempt: int
    n: Count
    vectors: bytes
    call: Call | None = None


class Finished(msgspec.Struct, frozen=True, array_like=True, tag="finished"):
    """The last frame of an attempt; `text` is the tail that was still held back."""

    job: str
    attempt: int
    reason: FinishReason
    text: str
    completion_tokens: Count
    prefill_ms: float
    decode_ms: float
    error: str = ""  # with reason ERROR: one sentence for the client
    n_computed: Amount = 0  # tokens that this attempt has put through the model
    draft_n: Count = 0  # guessed tokens that were computed before it was their turn
    draft_n_accepted: Count = 0  # of those, the ones that came
    error_field: str = ""  # of the request, where that is to blame


class Stopped(msgspec.Struct, frozen=True, array_like=True, tag="stopped"):
    """Answer to Cancel, or a job the worker parked by itself because KV ran short."""

    job: str
    attempt: int
    n_tokens: Count  # completion tokens computed so far in this attempt and before
    parked: bool = False
    n_computed: Amount = 0  # tokens that this attempt has put through the model
    draft_n: Count = 0
    draft_n_accepted: Count = 0


class WorkerStats(msgspec.Struct, frozen=True, array_like=True, tag="stats"):
    """Once a second while work is done, and after each change to idle."""

    running: Count
    waiting: Count
    kv_cells_used: Count  # that requests run on, each counted once
    prefill_tokens: Amount  # since the start
    decode_tokens: Amount
    steps: Amount
    step_ms: float  # of the last step
    rss_bytes: Amount
    kv_cells_kept: Count = 0  # of ended requests, for those that begin alike
    cache_bytes: Amount = 0  # of computed prompts in host RAM


class Step(msgspec.Struct, frozen=True, array_like=True, tag="step"):
    """All that one engine step produced: one frame, one write, one wake-up."""

    events: list[Started | Delta | Embedded | Inferred | Finished | Stopped]


ToWorker = (
    Load
    | Submit
    | Embed
    | Infer
    | Cancel
    | Cores
    | Stored
    | Given
    | Stop
    | Prepare
    | PrepareInputs
    | Compile
    | CompileTools
)
OfRuns = Kept | Dropped | Fetch
FromPrompter = Prepared | PreparedInputs | Compiled | PrepareFailed
FromWorker = Loading | Ready | LoadFailed | Step | WorkerStats | OfRuns | FromPrompter
Event = Started | Delta | Embedded | Inferred | Finished | Stopped

encode = msgspec.msgpack.Encoder().encode


def decode_to_worker(frame: bytes | bytearray | memoryview) -> ToWorker:
    """Raises msgspec.DecodeError or UnicodeDecodeError on a frame that is not ours."""
    return _TO_WORKER.decode(frame)


def decode_from_worker(frame: bytes | bytearray | memoryview) -> FromWorker:
    """Raises msgspec.DecodeError or UnicodeDecodeError on a frame that is not ours."""
    return _FROM_WORKER.decode(frame)


_TO_WORKER: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_FROM_WORKER: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
