"""The prompt helper beside a worker: python -m inferd.backends.prepare --fd N.

It holds a model's vocabulary only, renders chat templates and tokenizes. A template that breaks every limit kills this
process and nothing else.
"""

from __future__ import annotations

import argparse
import resource
import time
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

import msgspec

from . import cage
from .channel import SyncChannel
from .child import settle
from .engine import GrammarError, LoadError
from .messages import (
    Compile,
    Compiled,
    CompileTools,
    Load,
    LoadFailed,
    Prepare,
    Prepared,
    PreparedInputs,
    PrepareFailed,
    PrepareInputs,
    Ready,
    Stop,
    decode_to_worker,
    encode,
)
from .template import TemplateError, TimeUp, time_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .facts import LoadPlan
    from .messages import CallSyntax, ChatMessage, FormatKind, Tool, ToolUse

PROMPT_BYTES = 4 * 2**20
MAX_INPUT_TOKENS = 4 * 2**20  # of all inputs of a request; a long query counts with each of its documents
HEADROOM_BYTES = 768 * 2**20  # address space beyond what the loaded vocabulary takes
# Address space to open one, beyond the libraries: 152k words take 50 MiB, 400k take 130; 194k in a tokenizer.json 140.
VOCABULARY_BYTES = 2**30
COMPILE_S = 2.0  # of a form: the prompts of others wait meanwhile
CPU_S = 20  # of one Prepare; the kernel ends the process then, whatever C code it is in


class Tokenizer(Protocol):
    """What one backend knows about the prompts of one model."""

    n_vocab: int

    def chat(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[int] | None:
        """None when the model has no chat template. Raises TemplateError."""

    def plain(self, prompt: str, *, add_special: bool, parse_special: bool) -> list[int]: ...

    def pairs(self, query: str, documents: Iterable[str]) -> Iterator[tuple[list[int], int]]:
        """What a model that ranks reads of the query and each document, and where the second part begins: 0 when the
        model is not told."""

    def placed(self, text: str) -> tuple[list[int], list[int]]:
        """Tokens, and of each the first character in the text and the one after its last; only for models that tag."""

    def compile(self, kind: FormatKind, text: str) -> str:
        """What the worker understands of a form. Raises GrammarError."""

    def compile_tools(self, use: ToolUse) -> tuple[str, CallSyntax]:
        """The grammar of calls, and how the model writes them. Raises GrammarError."""


TOKENIZERS = {"llama": ".llama.tokenizer", "onnx": ".onnx.tokenizer", "fake": ".fake_tokenizer"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="inferd-prepare")
    parser.add_argument("--fd", type=int, required=True)
    channel = SyncChannel(settle(parser.parse_args().fd))
    try:
        tokenizer = load(channel, cage.close_in, limit_memory)
        if tokenizer is not None:
            serve(channel, tokenizer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the daemon is gone, and with it every reason to go on


def load(
    channel: SyncChannel,
    close_in: Callable[[LoadPlan], str] = lambda _: "",
    limit: Callable[[int], None] = lambda _: None,
) -> Tokenizer | None:
    """Open the vocabulary of the first message's model and say so; None when it cannot be."""
    start_s = time.perf_counter()
    frame = channel.recv(block=True)
    assert frame is not None
    message = decode_to_worker(frame)
    assert isinstance(message, Load)
    plan = message.plan
    try:
        held = close_in(msgspec.structs.replace(plan, devices=()))  # it needs none
        tokenizer = open_tokenizer(plan, limit)
    except LoadError as error:
        channel.send(encode(LoadFailed(error.code, str(error))))
        return None
    load_ms = (time.perf_counter() - start_s) * 1e3
    channel.send(encode(Ready(plan.n_ctx, 0, 0, tokenizer.n_vocab, "CPU", load_ms, {}, cage=held)))
    return tokenizer


def open_tokenizer(plan: LoadPlan, limit: Callable[[int], None] = lambda _: None) -> Tokenizer:
    """Raises LoadError. Libraries come first, as they may be large, and are to be trusted."""
    opener = import_module(TOKENIZERS[plan.backend], __package__)
    limit(VOCABULARY_BYTES)
    try:
        tokenizer: Tokenizer = opener.load(plan)
    except MemoryError:
        raise LoadError("corrupt", f"its vocabulary takes more than {VOCABULARY_BYTES >> 20:,} MiB") from None
    limit(HEADROOM_BYTES)
    return tokenizer


def limit_memory(n_bytes: int) -> None:
    """From here on this process may take so much more address space, and cannot be given more again."""
    with open("/proc/self/statm", "rb") as file:
        used_bytes = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = used_bytes + n_bytes if hard < 0 else min(used_bytes + n_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, wanted))


def limit_cpu() -> None:
    """Wind up the clock for the next prompt."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + CPU_S, hard))


def serve(channel: SyncChannel, tokenizer: Tokenizer) -> None:
    """Until Stop, one prompt after the other."""
    while True:
        frame = channel.recv(block=True)
        assert frame is not None
        match decode_to_worker(frame):
            case Prepare() as request:
                limit_cpu()
                channel.send(encode(prepare(tokenizer, request)))
            case PrepareInputs() as request:
                limit_cpu()
                channel.send(encode(prepare_inputs(tokenizer, request)))
            case Compile() | CompileTools() as request:
                limit_cpu()
                channel.send(encode(compile_form(tokenizer, request)))
            case Stop():
                return
            case other:
                raise AssertionError(f"not for a prompt helper: {other}")


def prepare(tokenizer: Tokenizer, request: Prepare) -> Prepared | PrepareFailed:
    """Tokens of one prompt, or why there are none."""
    texts = [request.prompt or ""] if request.messages is None else [t for m in request.messages for t in m.texts]
    texts += [text for tool in request.tools for text in tool.texts]
    n_bytes = sum(len(text.encode(errors="replace")) for text in texts)
    if n_bytes > PROMPT_BYTES:
        return PrepareFailed(request.id, "limit", f"the prompt has {n_bytes} bytes, at most {PROMPT_BYTES} are allowed")
    try:
        if request.messages is None:
            tokens: list[int] | None = tokenizer.plain(
                texts[0], add_special=request.add_special, parse_special=request.parse_special
            )
        else:
            tokens = tokenizer.chat(request.messages, request.tools)
    except TemplateError as error:
        return PrepareFailed(request.id, error.code, str(error))
    except MemoryError:
        return PrepareFailed(request.id, "limit", "the prompt needs too much memory to tokenize")
    if tokens is None:
        return PrepareFailed(request.id, "no_template", "the model has no chat template; send a plain prompt")
    if not tokens:
        return PrepareFailed(request.id, "tokenize", "the prompt is empty")
    return Prepared(request.id, tokens)


def prepare_inputs(tokenizer: Tokenizer, request: PrepareInputs) -> PreparedInputs | PrepareFailed:
    """Tokens of each text, or why there are none."""
    texts, query = request.texts, request.query
    if request.offsets and len(texts) == 1 and len(texts[0]) <= PROMPT_BYTES // 4:
        tokens, offsets = tokenizer.placed(texts[0])
        return PreparedInputs(request.id, [tokens], [], [offsets])
    n_bytes = sum(len(text.encode(errors="replace")) for text in (*texts, query or ""))
    if n_bytes > PROMPT_BYTES:
        return PrepareFailed(
            request.id, "limit", f"the texts have {n_bytes:,} bytes together, at most {PROMPT_BYTES:,} are allowed"
        )
    each = (
        ((tokenizer.plain(text, add_special=True, parse_special=True), 0) for text in texts)
        if query is None
        else tokenizer.pairs(query, texts)
    )
    inputs, seconds, n_left = [], [], MAX_INPUT_TOKENS
    try:
        for tokens, second in each:
            inputs.append(tokens)
            seconds.append(second)
            n_left -= len(tokens)
            if n_left < 0:
                message = f"the texts have more than {MAX_INPUT_TOKENS:,} tokens together"
                return PrepareFailed(request.id, "limit", message)
    except MemoryError:
        return PrepareFailed(request.id, "limit", "the texts need too much memory to tokenize")
    return PreparedInputs(request.id, inputs, seconds if any(seconds) else [])


def compile_form(tokenizer: Tokenizer, request: Compile | CompileTools) -> Compiled | PrepareFailed:
    """A form for the worker, or why there is none."""
    try:
        with time_limit(COMPILE_S):
            if isinstance(request, CompileTools):
                return Compiled(request.id, *tokenizer.compile_tools(request.use))
            return Compiled(request.id, tokenizer.compile(request.kind, request.text))
    except TimeUp:
        return PrepareFailed(request.id, "grammar", f"it takes longer than {COMPILE_S:g} s to compile")
    except GrammarError as error:
        return PrepareFailed(request.id, error.code, str(error), error.field)
    except MemoryError:
        return PrepareFailed(request.id, "limit", "the form needs too much memory to compile")


if __name__ == "__main__":
    main()
