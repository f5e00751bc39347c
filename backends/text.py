"""Token bytes to valid UTF-8, stop strings held back until decided.

The text of a request ends before the stop string that is complete first, however the bytes were cut into tokens.
"""

from __future__ import annotations

import codecs

_new_decoder = codecs.getincrementaldecoder("utf-8")


class TextStream:
    """One request's text. Only what comes after the first `sent_bytes` of it is returned."""

    def __init__(self, stop: tuple[str, ...] = (), sent_bytes: int = 0) -> None:
        self._decoder = _new_decoder(errors="replace")
        self._stop = tuple(s for s in stop if s)
        self._stop_chars = frozenset("".join(self._stop))
        self._sent_bytes = sent_bytes
        self._held = ""
        self.stopped = False  # a stop string was found; nothing more will come

    def feed(self, piece: bytes) -> str:
        """The bytes of the next token; returns the text that is now decided, often ''."""
        return self._take(self._decoder.decode(piece))

    def flush(self) -> str:
        """No token follows: what was held back, unless a stop string took it."""
        text = self._take(self._decoder.decode(b"", final=True))
        if self.stopped:
            return text
        tail, self._held = self._held, ""
        return text + self._unsent(tail)

    def _take(self, text: str) -> str:
        if not text or self.stopped:
            return ""
        if self._stop:
            text = self._before_stop(self._held + text)
        return self._unsent(text) if self._sent_bytes else text

    def _before_stop(self, text: str) -> str:
        # The stop string that ends first wins, and of those the longest: the answer must not depend on the cut.
        hits = [(start + len(s), start) for s in self._stop if (start := text.find(s)) >= 0]
        if hits:
            self.stopped = True
            self._held = ""
            return text[: min(hits)[1]]
        n_held = self._undecided(text)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        if not text or text[-1] not in self._stop_chars:
            return 0
        longest = 0
        for s in self._stop:
            for n in range(min(len(s) - 1, len(text)), longest, -1):
                if text.endswith(s[:n]):
                    longest = n
                    break
        return longest

    def _unsent(self, text: str) -> str:
        if not self._sent_bytes:
            return text
        raw = text.encode()
        kept = raw[self._sent_bytes :]
        self._sent_bytes = max(0, self._sent_bytes - len(raw))
        return kept.decode(errors="replace")
