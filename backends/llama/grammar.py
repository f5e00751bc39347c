"""Answers of a given form: llguidance says which tokens may come next. The one room that knows it.

A form is checked and translated in the prompt helper (`translate`), compiled once in the worker beside the engine
(`Grammars`), and followed by each request on a copy of its own (`Grammar`).
"""

from __future__ import annotations

import json
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine import GrammarError
from .lazy import NoCalls, OnCall

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..messages import FormatKind, SamplingParams
    from .binding import Logits
    from .vocab import Vocab

MAX_KEPT = 32  # compiled grammars
MAX_KEPT_CHARS = 2**20  # of their texts: large ones take up to 150 bytes each once they are compiled
MAX_STATES = 25_000  # of a lexer, at up to 2 kB
# One blank, or a new line with its indentation: else a weak model may go on with blanks for ever.
WHITESPACE = r"( |\n[ \t]{0,40})?"


def translate(kind: FormatKind, text: str) -> str:
    """What llguidance understands. Raises GrammarError."""
    from llguidance import LLMatcher
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        if kind == "grammar":
            made = LLMatcher.grammar_from_lark(gbnf_to_lark(text))
        else:
            schema = {"type": "object"} if kind == "json_object" else json.loads(text)
            made = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": WHITESPACE})
    except MemoryError:
        raise
    except Exception as error:  # the converter has no type of its own for all that it finds
        raise GrammarError(_one_line(str(error))) from None
    return _valid(made)


def checked(lark: str) -> str:
    """A grammar in llguidance's own words. Raises GrammarError."""
    from llguidance import LLMatcher

    return _valid(LLMatcher.grammar_from_lark(lark))


def check_schema(schema: dict[str, Any], field: str) -> None:
    """Raises GrammarError that names `field`."""
    from llguidance import LLMatcher

    try:
        _valid(LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    except (GrammarError, ValueError) as error:  # half a pair of surrogates is no error of a schema, but of a value
        raise GrammarError(f"{field}: {_one_line(str(error))}", field=field) from None


def _valid(made: str) -> str:
    from llguidance import LLMatcher

    failed, messages = LLMatcher.validate_grammar_with_warnings(made, limits=_limits())
    if failed:
        raise GrammarError(_one_line(messages[0]))
    return made


class Grammars:
    """Compiles in a thread of its own, as it may take a second, and keeps what it has made."""

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab
        self._thread: ThreadPoolExecutor | None = None
        self._tokenizer: Any = None
        self._made: OrderedDict[str, Future[Any]] = OrderedDict()

    def ready(self, grammar: str, wait_s: float = 0.0) -> bool:
        """Whether it is compiled, which begins when it is first asked for."""
        made = self._made.get(grammar)
        if made is None:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "grammar")
            made = self._made[grammar] = self._thread.submit(self._compile, grammar)
            self._forget()
        self._made.move_to_end(grammar)
        if wait_s:
            wait([made], wait_s)
        return made.done()

    def begin(self, params: SamplingParams) -> Grammar | OnCall | NoCalls:
        """For one request; its grammar must be ready. Raises GrammarError."""
        calls = params.calls
        if calls is not None and not params.grammar:
            return NoCalls(self._vocab.marker(calls.begin))
        grammar = self._begin(params.grammar)
        if calls is None or calls.grammar != "on_call":
            return grammar
        return OnCall(grammar.copy, calls, self._vocab.spelling(calls))

    def _begin(self, grammar: str) -> Grammar:
        try:
            matcher = self._made[grammar].result(timeout=0)
        except BaseException:  # a panic of the library is no Exception
            raise GrammarError("it could not be compiled for this model") from None
        if matcher.is_error():
            raise GrammarError(_one_line(matcher.get_error()))
        return Grammar(matcher.deep_copy())

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _forget(self) -> None:
        """Those that were asked for least lately, but none that somebody still waits for."""
        n_chars = sum(map(len, self._made))
        for grammar in [grammar for grammar, made in self._made.items() if made.done()]:
            if len(self._made) <= MAX_KEPT and n_chars <= MAX_KEPT_CHARS:
                return
            n_chars -= len(grammar)
            del self._made[grammar]

    def _compile(self, grammar: str) -> Any:
        from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

        if self._tokenizer is None:  # about a second for a large vocabulary
            words = TokenizerWrapper(_Words(self._vocab))
            self._tokenizer = LLTokenizer(words, eos_token=sorted(self._vocab.eog))
        return LLMatcher(self._tokenizer, grammar, log_level=0, limits=_limits())


class Grammar:
    """How far one answer is in its form."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    @property
    def complete(self) -> bool:
        """Nothing more may come."""
        return bool(self._matcher.is_stopped()) and not self.failed

    @property
    def failed(self) -> bool:
        """It cannot be followed any further; `fault` says why."""
        return bool(self._matcher.is_error())

    @property
    def fault(self) -> str:
        """Why there is no next token."""
        if self.failed:
            return "the grammar became too complex to follow"
        return "no token of the model fits the grammar"

    def copy(self) -> Grammar:
        """From the same point on."""
        return Grammar(self._matcher.deep_copy())

    def mask(self, row: Logits) -> None:
        """Rule out what may not come next."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: len(row)]
        row[allowed == 0] = -np.inf

    def accept(self, *tokens: int) -> None:
        """These came."""
        self._matcher.consume_tokens(list(tokens))

    def forced(self) -> list[int]:
        """Tokens that spell what must come next, as they are most likely cut."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens


def _limits() -> Any:
    from llguidance import LLParserLimits

    return LLParserLimits(max_lexer_states=MAX_STATES, verbose_errors=False)


class _Words:
    """A vocabulary as llguidance asks for it."""

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab
        self.eos_token_id, self.bos_token_id = vocab.eos, vocab.bos
        self.special_token_ids = sorted(vocab.markers)
        self.tokens = [vocab.piece(token) for token in range(vocab.n_tokens)]
        for token in vocab.markers:
            self.tokens[token] = vocab.text(token).encode()

    def __call__(self, text: bytes) -> list[int]:
        return self._vocab.tokenize(text, add_special=False, parse_special=False)


def _one_line(text: str) -> str:
    """The first line of what a library says, without what is not for clients."""
    return text.strip().split("\n")[0][:300]
