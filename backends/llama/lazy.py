"""Grammars of answers with tools: free text costs nothing and may be anything, until a call begins."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..messages import CallSyntax
    from .binding import Logits
    from .grammar import Grammar


class OnCall:
    """Holds from the token in which a call begins until the call ends, and again with the next one."""

    fault = ""

    def __init__(self, begin: Callable[[], Grammar], syntax: CallSyntax, piece: Callable[[int], bytes]) -> None:
        self._begin = begin
        self._piece = piece
        self._once = syntax.once
        self._mark = syntax.begin.encode()
        self._last = self._mark[-1:]
        self._recent: list[tuple[int, bytes]] = []  # the last tokens, in which the mark may have begun
        # A bare call is an object that names a tool before anything else.
        self._bare = b'{"%s":' % syntax.name_key.encode() if syntax.bare else b""
        self._call: Grammar | None = None
        self.complete = False  # nothing more may come
        self.failed = False

    def mask(self, row: Logits) -> None:
        if self._call is not None:
            self._call.mask(row)
            self._note_failure()

    def accept(self, *tokens: int) -> None:
        for token in tokens:
            if self._call is None:
                self._watch(token)
            else:
                self._call.accept(token)
                self._note_failure()
            if self._call is not None and self._call.complete:
                self._call, self._recent, self._bare = None, [], b""
                self.complete = self._once

    def forced(self) -> list[int]:
        return [] if self._call is None else self._call.forced()

    def _note_failure(self) -> None:
        assert self._call is not None
        if self._call.failed:
            self.failed, self.fault = True, self._call.fault

    def _watch(self, token: int) -> None:
        """One more token of free text: does a call begin with it?"""
        piece = self._piece(token)
        self._recent.append((token, piece))
        if self._bare:
            self._watch_bare()
        if self._call is not None or self._bare:
            return
        if self._last in piece:
            at = b"".join(p for _, p in self._recent).find(self._mark)
            if at >= 0:
                self._forget(at)
                self._try()
        self._forget(sum(len(p) for _, p in self._recent) - len(self._mark) + 1)

    def _watch_bare(self) -> None:
        text = re.sub(rb"\s", b"", b"".join(p for _, p in self._recent))
        if text.startswith(self._bare):
            self._bare = b""
            self._try()
        elif not self._bare.startswith(text):
            self._bare = b""

    def _try(self) -> None:
        """What came since the mark began is no call when it does not fit the grammar."""
        call = self._begin()
        call.accept(*(token for token, _ in self._recent))
        if not call.failed:
            self._call = call

    def _forget(self, n_bytes: int) -> None:
        """Tokens that end within the first so many bytes."""
        while self._recent and (n := len(self._recent[0][1])) <= n_bytes:
            n_bytes -= n
            del self._recent[0]


class NoCalls:
    """Rules out the token with which calls begin."""

    complete = failed = False
    fault = ""

    def __init__(self, token: int | None) -> None:
        self._token = token

    def mask(self, row: Logits) -> None:
        if self._token is not None:
            row[self._token] = -np.inf

    def accept(self, *tokens: int) -> None:
        """Whatever comes is free text."""

    def forced(self) -> list[int]:
        return []
