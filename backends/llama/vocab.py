"""The tokens of a model over llama.cpp's C API: their bytes, their roles, and text turned into them."""

from __future__ import annotations

import ctypes
from functools import cached_property
from typing import TYPE_CHECKING, Any

import llama_cpp.llama_cpp as c

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..messages import CallSyntax

MAX_APART = 128  # tokens; of two vocabularies that are one the larger is padded (llama.cpp's own tolerance)
FIRST_COMPARED = 5  # those before are spelled in many ways and mean the same


class Vocab:
    """Tokens and their bytes."""

    def __init__(self, vocab: Any) -> None:
        self._vocab = vocab
        self.n_tokens: int = c.llama_vocab_n_tokens(vocab)
        self.bos = _token_or_none(c.llama_vocab_bos(vocab))
        self.eos = _token_or_none(c.llama_vocab_eos(vocab))
        self.sep = _token_or_none(c.llama_vocab_sep(vocab))
        self._pieces: dict[int, bytes] = {}

    @cached_property
    def eog(self) -> frozenset[int]:
        """Tokens that end a generation."""
        return frozenset(t for t in range(self.n_tokens) if c.llama_vocab_is_eog(self._vocab, t))

    @cached_property
    def markers(self) -> frozenset[int]:
        """Tokens that are no text: control tokens, and what was added in their likeness ("<tool_call>")."""
        return frozenset(filter(self.is_marker, range(self.n_tokens)))

    def is_marker(self, token: int) -> bool:
        kind = c.llama_vocab_get_attr(self._vocab, token)
        added = kind & c.LLAMA_TOKEN_ATTR_USER_DEFINED and self.text(token)[:1] + self.text(token)[-1:] == "<>"
        return bool(kind & c.LLAMA_TOKEN_ATTR_CONTROL or added)

    def marker(self, text: str) -> int | None:
        """The one that is spelled so; None when that is text to this model."""
        tokens = self.tokenize(text.encode(), add_special=False, parse_special=True)
        return tokens[0] if len(tokens) == 1 and self.is_marker(tokens[0]) else None

    @cached_property
    def suppressed(self) -> tuple[int, ...]:
        """Tokens the model's file says must never be drawn."""
        n = ctypes.c_int32(0)
        tokens = c.llama_vocab_get_suppress_tokens(self._vocab, ctypes.byref(n))
        return tuple(tokens[i] for i in range(n.value)) if tokens else ()

    @property
    def add_bos(self) -> bool:
        return bool(c.llama_vocab_get_add_bos(self._vocab))

    @property
    def add_eos(self) -> bool:
        return bool(c.llama_vocab_get_add_eos(self._vocab))

    @property
    def add_sep(self) -> bool:
        return bool(c.llama_vocab_get_add_sep(self._vocab))

    def text(self, token: int | None) -> str:
        """How the vocabulary spells a token: "<|im_end|>"."""
        raw = None if token is None else c.llama_vocab_get_text(self._vocab, token)
        return raw.decode(errors="replace") if raw else ""

    def difference(self, other: Vocab) -> str:
        """Why a token there is not the same token here, or ''."""
        if c.llama_vocab_type(self._vocab) != c.llama_vocab_type(other._vocab):
            return "it is of another kind"
        if abs(self.n_tokens - other.n_tokens) > MAX_APART:
            return f"it has {other.n_tokens} tokens, not {self.n_tokens}"
        for what, adds, token in (
            ("BOS", c.llama_vocab_get_add_bos, c.llama_vocab_bos),
            ("EOS", c.llama_vocab_get_add_eos, c.llama_vocab_eos),
        ):
            if adds(self._vocab) != adds(other._vocab):
                return f"only one of them adds {what}"
            if adds(self._vocab) and token(self._vocab) != token(other._vocab):
                return f"{what} is token {token(other._vocab)}, not {token(self._vocab)}"
        spelled, ours, theirs = c.llama_vocab_get_text, self._vocab, other._vocab
        for token in range(FIRST_COMPARED, min(self.n_tokens, other.n_tokens)):
            if spelled(ours, token) != spelled(theirs, token):
                return f"token {token} is {other.text(token)[:32]!r}, not {self.text(token)[:32]!r}"
        return ""

    def piece(self, token: int) -> bytes:
        """What a token adds to a text; control tokens add nothing."""
        piece = self._pieces.get(token)
        if piece is None:
            buffer = ctypes.create_string_buffer(256)  # of this call alone: two threads may ask
            n = c.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
            if n < 0:
                buffer = ctypes.create_string_buffer(-n)
                n = c.llama_token_to_piece(self._vocab, token, buffer, -n, 0, False)
            piece = self._pieces[token] = buffer.raw[:n]
        return piece

    def spelling(self, calls: CallSyntax | None) -> Callable[[int], bytes]:
        """`piece`; in answers with tool calls with the control tokens that mark them, too."""
        if calls is None:
            return self.piece
        shown = {token: mark.encode() for mark in calls.marks if (token := self.marker(mark)) is not None}
        return lambda token: self.piece(token) or shown.get(token, b"")

    def tokenize(self, text: bytes, *, add_special: bool, parse_special: bool) -> list[int]:
        n_max = len(text) + 8
        for _ in range(2):
            tokens = (c.llama_token * n_max)()
            n = c.llama_tokenize(self._vocab, text, len(text), tokens, n_max, add_special, parse_special)
            if n >= 0:
                return list(tokens[:n])
            n_max = -n
        raise AssertionError("llama_tokenize asked for more room twice")


def _token_or_none(token: int) -> int | None:
    return None if token == c.LLAMA_TOKEN_NULL else token
