"""Prompts for the fake engine: one token for each UTF-8 byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .engine import GrammarError
from .fake import N_VOCAB

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .facts import LoadPlan
    from .messages import ChatMessage, FormatKind


class FakeTokenizer:
    n_vocab = N_VOCAB

    def chat(self, messages: Sequence[ChatMessage]) -> list[int]:
        text = "".join(f"{m.role}: {m.content}\n" for m in messages)
        return self.plain(text + "assistant: ", add_special=True, parse_special=True)

    def plain(self, prompt: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return list(prompt.encode(errors="replace"))

    def pairs(self, query: str, documents: Iterable[str]) -> Iterator[list[int]]:
        for document in documents:
            yield list(f"{query}\n{document}".encode(errors="replace"))

    def compile(self, kind: FormatKind, text: str) -> str:
        raise GrammarError("the fake engine follows no grammar", "unsupported")


def load(plan: LoadPlan) -> FakeTokenizer:
    return FakeTokenizer()
