"""The tokens of a model over llama.cpp's C API: their bytes, their roles, and text turned into them."""

from __future__ import annotations

import ctypes
from functools import cached_property
from typing import Any

import llama_cpp.llama_cpp as c


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

        def is_marker(token: int) -> bool:
            kind = c.llama_vocab_get_attr(self._vocab, token)
            added = kind & c.LLAMA_TOKEN_ATTR_USER_DEFINED and self.text(token)[:1] + self.text(token)[-1:] == "<>"
            return bool(kind & c.LLAMA_TOKEN_ATTR_CONTROL or added)

        return frozenset(filter(is_marker, range(self.n_tokens)))

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
