"""Prompts for the fake engine: one token for each UTF-8 byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .engine import GrammarError
from .fake import N_VOCAB
from .tools import HERMES, call_text, spelled_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .facts import LoadPlan
    from .messages import CallSyntax, ChatMessage, FormatKind, Tool, ToolUse


class FakeTokenizer:
    n_vocab = N_VOCAB

    def chat(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[int]:
        text = "".join(f"{m.role}: {m.content}\n" for m in spelled_out(messages, tools))
        return self.plain(text + "assistant: ", add_special=True, parse_special=True)

    def plain(self, prompt: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return list(prompt.encode(errors="replace"))

    def pairs(self, query: str, documents: Iterable[str]) -> Iterator[tuple[list[int], int]]:
        for document in documents:
            yield list(f"{query}\n{document}".encode(errors="replace")), 0

    def placed(self, text: str) -> tuple[list[int], list[int]]:
        tokens = self.plain(text, add_special=True, parse_special=True)
        return tokens, [place for i in range(len(tokens)) for place in (i, i + 1)]

    def compile(self, kind: FormatKind, text: str) -> str:
        raise GrammarError("the fake engine follows no grammar", "unsupported")

    def compile_tools(self, use: ToolUse) -> tuple[str, CallSyntax]:
        """Where a call must come, it is one without arguments; a grammar is what the fake engine says."""
        said = call_text(use.function or use.tools[0].name, "{}") if use.choice == "required" else ""
        return said, msgspec.structs.replace(HERMES, grammar="at_once" if said else "on_call")


def load(plan: LoadPlan) -> FakeTokenizer:
    return FakeTokenizer()
