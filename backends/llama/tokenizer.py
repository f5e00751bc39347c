"""Prompts of a GGUF model: its own vocabulary and chat template, without its weights."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from ..engine import GrammarError, LoadError
from ..template import ChatTemplate
from ..tools import syntax_of
from .binding import BindingError, Model
from .calls import translate_tools
from .grammar import translate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..facts import LoadPlan
    from ..messages import CallSyntax, ChatMessage, FormatKind, Tool, ToolUse


_BLANKS = re.compile(r"(\{query\}|\{document\})")  # of a template for models that are asked in words


class LlamaTokenizer:
    """See Tokenizer in ../prepare.py."""

    def __init__(self, model: Model) -> None:
        self._vocab = model.vocab
        self.n_vocab = model.vocab.n_tokens
        source = model.chat_template()
        bos, eos = (self._vocab.text(token) for token in (self._vocab.bos, self._vocab.eos))
        self._translate = lru_cache(maxsize=64)(translate)
        self.compile_tools = lru_cache(maxsize=16)(self._compile_tools)
        self._rank_template = model.chat_template("rerank")
        self._template = ChatTemplate(source, bos_token=bos, eos_token=eos) if source else None

    def chat(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[int] | None:
        if self._template is None:
            return None
        text = self._template.render(messages, tools)
        tokens = self.plain(text, add_special=False, parse_special=True)
        bos = self._vocab.bos
        if self._vocab.add_bos and bos is not None and tokens[:1] != [bos]:
            tokens.insert(0, bos)  # many templates leave it to the tokenizer, many write it themselves
        return tokens

    def plain(self, prompt: str, *, add_special: bool, parse_special: bool) -> list[int]:
        raw = prompt.encode(errors="replace")
        return self._vocab.tokenize(raw, add_special=add_special, parse_special=parse_special)

    def pairs(self, query: str, documents: Iterable[str]) -> Iterator[tuple[list[int], int]]:
        """llama.cpp is not told where the second part begins."""
        return ((tokens, 0) for tokens in self._pairs(query, documents))

    def _pairs(self, query: str, documents: Iterable[str]) -> Iterator[list[int]]:
        if self._rank_template is None:
            yield from self._joined(query, documents)
            return
        parts = [(part, marker) for part, marker in self._parts(self._rank_template) if part]
        for document in documents:
            said, tokens = {"{query}": query, "{document}": document}, []
            for part, marker in parts:
                text = "".join(said.get(piece, piece) for piece in _BLANKS.split(part))
                tokens += self.plain(text, add_special=False, parse_special=marker)
            yield tokens

    def _parts(self, template: str) -> Iterator[tuple[str, bool]]:
        """Marker or text by turns: only the template's own markers are any, and what is between is read as one text."""
        tokens = self.plain(template, add_special=False, parse_special=True)
        markers = {self._vocab.text(token) for token in tokens if self._vocab.is_marker(token)}
        if not markers:
            yield template, False
            return
        longest_first = sorted(markers, key=len, reverse=True)
        for i, part in enumerate(re.split(f"({'|'.join(map(re.escape, longest_first))})", template)):
            yield part, i % 2 == 1

    def _joined(self, query: str, documents: Iterable[str]) -> Iterator[list[int]]:
        """Both texts with the vocabulary's own marks around and between, as llama.cpp's server puts them."""
        vocab = self._vocab
        end = [mark for mark in [vocab.eos if vocab.eos is not None else vocab.sep] if mark is not None]
        end = end if vocab.add_eos else []
        sep = [vocab.sep] if vocab.add_sep and vocab.sep is not None else []
        bos = [vocab.bos] if vocab.add_bos and vocab.bos is not None else []
        before = bos + self.plain(query, add_special=False, parse_special=False) + end + sep
        for document in documents:
            yield before + self.plain(document, add_special=False, parse_special=False) + end

    def placed(self, text: str) -> tuple[list[int], list[int]]:
        raise AssertionError("models of llama.cpp do not tag")

    def compile(self, kind: FormatKind, text: str) -> str:
        return self._translate(kind, text)

    def _compile_tools(self, use: ToolUse) -> tuple[str, CallSyntax]:
        syntax = syntax_of(self._template.source) if self._template is not None else None
        if syntax is None:
            raise GrammarError("the model writes tool calls in a way that is not known here", "unsupported", "tools")
        return translate_tools(use, syntax, self._vocab.marker)


def load(plan: LoadPlan) -> LlamaTokenizer:
    """Raises LoadError."""
    try:
        return LlamaTokenizer(Model(plan.path, vocab_only=True))
    except BindingError as error:
        raise LoadError(error.fault, str(error)) from error
