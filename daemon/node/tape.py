"""The stream of a job that is kept on the disk: it holds what came until the next write, and nobody waits on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..domain.durable import Piece
from ..domain.tools import CallPiece
from .stream import MAX_MERGED_TOKENS, Finished, Stream, Text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...backends.messages import TokenLogprob
    from ..domain.durable import Kept
    from ..domain.errors import InferdError
    from ..domain.request import Job
    from .stream import StreamEvent


class Tape(Stream):
    """One stay of a job in the Node. `kept`: where its answer goes on.

    A worker says all text of an answer that goes on once more with its first new token; what is kept of it is skipped.
    """

    def __init__(self, job: Job, kept: Kept) -> None:
        super().__init__(job)
        self.finished: Finished | None = None
        self.over = False
        self.on_over: Callable[[], None] = lambda: None
        self._said: list[Text] = []  # one for each delta, as readers may ask for any token
        self._skip_chars = kept.n_chars
        self._skip_call_chars = dict(kept.call_chars)

    def push(self, event: StreamEvent) -> None:
        if isinstance(event, Finished) and not self.over:
            self.finished = event

    def push_text(
        self,
        index: int,
        text: str,
        tokens: Sequence[int],
        logprobs: list[TokenLogprob] | None,
        calls: list[CallPiece] | None = None,
    ) -> None:
        if self.over:
            return
        if self._skip_chars and text:
            text, self._skip_chars = text[self._skip_chars :], max(0, self._skip_chars - len(text))
        if self._skip_call_chars and calls:
            calls = self._unkept(calls)
        if not (tokens or text or calls):
            return
        self._said.append(Text(index, text, list(tokens), logprobs, calls or None))

    def close(self, error: InferdError | None = None) -> None:
        if not self.over:
            self.over, self.error = True, error
            self.on_over()

    def discard(self) -> None:
        self._said.clear()

    def wind(self, *, whole: bool) -> list[Piece]:
        """Take what came; unless that is all, the last token stays: text that is told at the end belongs to it."""
        n = len(self._said) if whole else max(0, len(self._said) - 1)
        taken, self._said = self._said[:n], self._said[n:]
        return to_pieces(taken)

    def _unkept(self, calls: list[CallPiece]) -> list[CallPiece]:
        new = []
        for call in calls:
            kept = self._skip_call_chars.get(call.index)
            if kept is not None:
                self._skip_call_chars[call.index] = max(0, kept - len(call.arguments))
                call = CallPiece(call.index, arguments=call.arguments[kept:])
                if not call.arguments:
                    continue
            new.append(call)
        return new


def to_pieces(said: Sequence[Text]) -> list[Piece]:
    """As few as they may be."""
    pieces: list[Piece] = []
    begin = n_tokens = 0
    for at, one in enumerate(said):
        if n_tokens >= MAX_MERGED_TOKENS and one.tokens:
            pieces.append(_piece(said[begin:at]))
            begin, n_tokens = at, 0
        n_tokens += len(one.tokens)
    return [*pieces, _piece(said[begin:])] if said else []


def _piece(said: Sequence[Text]) -> Piece:
    """The text of several tokens that came together is that of the last of them, as is text that came with none."""
    tokens: list[int] = []
    lengths: list[int] = []
    calls: list[tuple[int, CallPiece]] = []
    logprobs: list[TokenLogprob] = []
    for one in said:
        tokens += one.tokens
        lengths += [0] * len(one.tokens)
        if lengths:
            lengths[-1] += len(one.text)
        calls += [(max(0, len(tokens) - 1), call) for call in one.calls or ()]
        logprobs += one.logprobs or ()
    return Piece(said[0].index, tokens, lengths, "".join(one.text for one in said), calls, logprobs or None)
