"""The prompt helper: its answers in process, and its life as a real process."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from inferd.backends import prepare as prepares
from inferd.backends.channel import SyncChannel
from inferd.backends.engine import GrammarError
from inferd.backends.facts import LoadPlan
from inferd.backends.messages import (
    CallSyntax,
    ChatMessage,
    Compile,
    Compiled,
    CompileTools,
    FormatKind,
    FromWorker,
    Load,
    LoadFailed,
    Prepare,
    Prepared,
    PreparedInputs,
    PrepareFailed,
    PrepareInputs,
    Ready,
    Stop,
    Tool,
    ToolCall,
    ToolUse,
    ToWorker,
    decode_from_worker,
    encode,
)
from inferd.backends.prepare import PROMPT_BYTES, TOKENIZERS, compile_form, open_tokenizer, prepare, prepare_inputs
from inferd.backends.template import ChatTemplate
from inferd.backends.tools import HERMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

FAKE = LoadPlan(backend="fake", path="x", n_ctx=512, n_slots=1, kv_cells=512, n_threads=1)


class Templated:
    """A tokenizer of words with a given chat template."""

    n_vocab = 10

    def __init__(self, source: str | None) -> None:
        self.template = None if source is None else ChatTemplate(source)

    def chat(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[int] | None:
        if self.template is None:
            return None
        return self.plain(self.template.render(messages, tools), add_special=True, parse_special=True)

    def plain(self, prompt: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return [len(word) for word in prompt.split()]

    def pairs(self, query: str, documents: Iterable[str]) -> Iterator[tuple[list[int], int]]:
        for document in documents:
            if document == "huge":
                raise MemoryError
            yield self.plain(f"{query} {document}", add_special=True, parse_special=True), len(query.split())

    def placed(self, text: str) -> tuple[list[int], list[int]]:
        return self.plain(text, add_special=True, parse_special=True), [0, len(text)]

    def compile(self, kind: FormatKind, text: str) -> str:
        if text == "huge":
            raise MemoryError
        while text == "endless":
            time.sleep(0.01)
        if text == "bad":
            raise GrammarError("it is bad")
        return f"{kind}: {text}"

    def compile_tools(self, use: ToolUse) -> tuple[str, CallSyntax]:
        if use.tools[0].parameters == "bad":
            raise GrammarError("it is bad", field="tools[0].parameters")
        return use.tools[0].name, HERMES


def chat(source: str | None, content: str = "hi") -> Prepared | PrepareFailed:
    return prepare(Templated(source), Prepare("id", [ChatMessage("user", content)]))


def test_messages_become_tokens() -> None:
    assert chat("{{ messages[0].role }} {{ messages[0].content }}") == Prepared("id", [4, 2])


def test_a_plain_prompt_becomes_tokens() -> None:
    assert prepare(Templated(None), Prepare("id", prompt="a bb")) == Prepared("id", [1, 2])


def test_texts_become_tokens_each_by_itself() -> None:
    asked = PrepareInputs("id", ["a bb", "ccc"])
    assert prepare_inputs(Templated(None), asked) == PreparedInputs("id", [[1, 2], [3]])


def test_documents_become_pairs_with_the_query() -> None:
    asked = PrepareInputs("id", ["a", "bb"], query="four")
    assert prepare_inputs(Templated(None), asked) == PreparedInputs("id", [[4, 1], [4, 2]], [1, 1])


def test_tokens_are_placed_where_that_is_wanted() -> None:
    asked = PrepareInputs("id", ["four"], offsets=True)
    assert prepare_inputs(Templated(None), asked) == PreparedInputs("id", [[4]], [], [[0, 4]])


@pytest.mark.parametrize(
    ("limit", "texts", "message"),
    [
        ("PROMPT_BYTES", ["12345", "67"], "the texts have 11 bytes together, at most 8 are allowed"),
        ("MAX_INPUT_TOKENS", ["1 2 3 4", "5 6 7 8 9"], "the texts have more than 8 tokens together"),
        ("", ["huge"], "the texts need too much memory to tokenize"),
    ],
)
def test_texts_have_limits(limit: str, texts: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if limit:
        monkeypatch.setattr(prepares, limit, 8)
    answer = prepare_inputs(Templated(None), PrepareInputs("id", texts, query="four"))
    assert answer == PrepareFailed("id", "limit", message)


def test_a_form_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepares, "COMPILE_S", 0.05)
    answer = compile_form(Templated(None), Compile("id", "grammar", "endless"))
    assert answer == PrepareFailed("id", "grammar", "it takes longer than 0.05 s to compile")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("good", Compiled("id", "grammar: good")),
        ("bad", PrepareFailed("id", "grammar", "it is bad")),
        ("huge", PrepareFailed("id", "limit", "the form needs too much memory to compile")),
    ],
)
def test_a_form_is_compiled_or_refused(text: str, answer: Compiled | PrepareFailed) -> None:
    assert compile_form(Templated(None), Compile("id", "grammar", text)) == answer


def test_without_a_template_chat_is_refused() -> None:
    failed = chat(None)
    assert isinstance(failed, PrepareFailed)
    assert failed.code == "no_template"


def test_a_failing_template_says_so() -> None:
    failed = chat("{{ raise_exception('no') }}")
    assert isinstance(failed, PrepareFailed)
    assert (failed.code, failed.message) == ("template", "the chat template failed: no")


@pytest.mark.parametrize(
    "request_of", [lambda s: Prepare("id", prompt=s), lambda s: Prepare("id", [ChatMessage("u", s)])]
)
def test_a_prompt_beyond_the_limit_is_refused_with_numbers(request_of: object) -> None:
    assert callable(request_of)
    failed = prepare(Templated("x"), request_of("é" * (PROMPT_BYTES // 2 + 1)))
    assert isinstance(failed, PrepareFailed)
    assert failed.code == "limit"
    assert f"{PROMPT_BYTES + 2} bytes, at most {PROMPT_BYTES}" in failed.message


def test_nothing_at_all_is_refused() -> None:
    failed = prepare(Templated(None), Prepare("id", prompt=""))
    assert isinstance(failed, PrepareFailed)
    assert failed.code == "tokenize"


def test_tools_are_in_the_prompt_and_become_a_grammar() -> None:
    tool = Tool("f", "does it", '{"type": "object"}')
    asked = Prepare("id", [ChatMessage("user", "hi")], tools=(tool,))
    source = "{% for t in tools %}{{ t.function.name }} {{ t.function.description }}{% endfor %}"
    assert prepare(Templated(source), asked) == Prepared("id", [1, 4, 2])
    assert compile_form(Templated(source), CompileTools("id", ToolUse((tool,)))) == Compiled("id", "f", HERMES)


def test_the_tool_that_is_at_fault_is_named() -> None:
    answer = compile_form(Templated(""), CompileTools("id", ToolUse((Tool("f", "", "bad"),))))
    assert answer == PrepareFailed("id", "grammar", "it is bad", "tools[0].parameters")


def test_tools_and_calls_count_as_prompt() -> None:
    half = "x" * (PROMPT_BYTES // 2)
    call = ChatMessage("assistant", "", (ToolCall("1", "f", half),))
    for request in (Prepare("id", [call], tools=(Tool("f", "", half + "x"),)), Prepare("id", [call, call, call])):
        failed = prepare(Templated("x"), request)
        assert isinstance(failed, PrepareFailed)
        assert failed.code == "limit"


def test_the_fake_speaks_bytes() -> None:
    tokenizer = open_tokenizer(FAKE)
    assert tokenizer.plain("hé", add_special=True, parse_special=True) == list("hé".encode())
    assert tokenizer.chat([ChatMessage("user", "hi")]) == list(b"user: hi\nassistant: ")


def test_every_row_of_the_table_loads() -> None:
    assert set(TOKENIZERS) == {"fake", "llama", "onnx"}


@contextmanager
def process(plan: LoadPlan) -> Iterator[tuple[subprocess.Popen[bytes], SyncChannel]]:
    ours, theirs = socket.socketpair()
    child = subprocess.Popen(
        [sys.executable, "-m", "inferd.backends.prepare", "--fd", str(theirs.fileno())],
        pass_fds=(theirs.fileno(),),
        stderr=subprocess.DEVNULL,
    )
    theirs.close()
    channel = SyncChannel(ours)
    channel.send(encode(Load(plan)))
    try:
        yield child, channel
    finally:
        ours.close()
        child.wait(20)


def ask(channel: SyncChannel, message: ToWorker) -> FromWorker:
    channel.send(encode(message))
    return answer(channel)


def answer(channel: SyncChannel) -> FromWorker:
    frame = channel.recv(block=True)
    assert frame is not None
    return decode_from_worker(frame)


def test_a_process_answers_ignores_signals_and_ends_with_the_channel() -> None:
    with process(FAKE) as (child, channel):
        assert isinstance(answer(channel), Ready)
        os.kill(child.pid, signal.SIGINT)
        os.kill(child.pid, signal.SIGTERM)
        assert ask(channel, Prepare("7", prompt="ab")) == Prepared("7", [97, 98])
    assert child.returncode == 0


def test_a_process_ends_on_stop() -> None:
    with process(FAKE) as (child, channel):
        assert isinstance(answer(channel), Ready)
        channel.send(encode(Stop()))
        assert child.wait(20) == 0


@pytest.mark.llama
def test_a_process_with_a_real_vocabulary(tmp_path: Path) -> None:
    from inferd.tests.models.random_gguf import SHAPES, write_random_gguf

    path = write_random_gguf(tmp_path / "m.gguf", SHAPES["tiny"])
    plan = LoadPlan(backend="llama", path=str(path), n_ctx=512, n_slots=1, kv_cells=512, n_threads=1)
    with process(plan) as (child, channel):
        ready = answer(channel)
        assert isinstance(ready, Ready)
        assert ready.n_vocab == 512
        plain = ask(channel, Prepare("1", prompt="<|im_start|>"))
        assert isinstance(plain, Prepared)
        assert len(plain.tokens) == 1
        talk = ask(channel, Prepare("2", [ChatMessage("user", "hi")]))
        assert isinstance(talk, Prepared)
        assert talk.tokens[0] == plain.tokens[0]
    assert child.returncode == 0


@pytest.mark.llama
@pytest.mark.parametrize(
    "hostile",
    [
        "{{ ('x' * 4000000) | replace('x', 'x' * 4000000) }}",
        "{% set ns = namespace(a=['x']) %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
        "{{ '%0999999999d' % 1 }}{{ 'x' | center(999999999) }}",
    ],
)
def test_a_process_survives_a_template_that_wants_all_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: str
) -> None:
    from inferd.tests.models import random_gguf

    monkeypatch.setattr(random_gguf, "CHAT_TEMPLATE", hostile)
    path = random_gguf.write_random_gguf(tmp_path / "m.gguf", random_gguf.SHAPES["tiny"])
    plan = LoadPlan(backend="llama", path=str(path), n_ctx=512, n_slots=1, kv_cells=512, n_threads=1)
    with process(plan) as (child, channel):
        assert isinstance(answer(channel), Ready)
        failed = ask(channel, Prepare("1", [ChatMessage("user", "hi")]))
        assert isinstance(failed, PrepareFailed)
        assert failed.code == "limit"
        assert isinstance(ask(channel, Prepare("2", prompt="a")), Prepared)
    assert child.returncode == 0


GREEDY = """
import socket, sys, types
from inferd.backends import prepare
from inferd.backends.channel import SyncChannel

def load(plan):
    return bytearray(2 * prepare.VOCABULARY_BYTES)

sys.modules["inferd.backends.greedy"] = greedy = types.ModuleType("greedy")
greedy.load = load
prepare.TOKENIZERS["fake"] = ".greedy"
prepare.load(SyncChannel(socket.socket(fileno=int(sys.argv[1]))), limit=prepare.limit_memory)
"""


def test_a_vocabulary_that_wants_all_memory_is_not_opened() -> None:
    ours, theirs = socket.socketpair()
    channel = SyncChannel(ours)
    command = [sys.executable, "-c", GREEDY, str(theirs.fileno())]
    with ours, theirs, subprocess.Popen(command, pass_fds=(theirs.fileno(),)) as child:
        channel.send(encode(Load(FAKE)))
        assert child.wait(20) == 0
        assert answer(channel) == LoadFailed("corrupt", "its vocabulary takes more than 1,024 MiB")


def test_the_limit_is_as_hard_as_it_is() -> None:
    """A process that is taken over may lift the one to the other."""
    with process(FAKE) as (child, channel):
        assert isinstance(answer(channel), Ready)
        limits = resource.prlimit(child.pid, resource.RLIMIT_AS)
        assert limits[0] == limits[1] < 4 * prepares.HEADROOM_BYTES


@pytest.mark.llama
def test_a_process_that_cannot_load_says_why(tmp_path: Path) -> None:
    plan = LoadPlan(backend="llama", path=str(tmp_path / "none.gguf"), n_ctx=1, n_slots=1, kv_cells=1, n_threads=1)
    with process(plan) as (child, channel):
        failed = answer(channel)
        assert isinstance(failed, LoadFailed)
        assert failed.code == "corrupt"
        assert str(tmp_path) not in failed.message
    assert child.returncode == 0
