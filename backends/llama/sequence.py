"""One request while it runs: its tokens, how far they are computed, its text and its clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..text import TextStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..messages import Submit
    from ..sampling import Sampler
    from .drafter import Drafted
    from .grammar import Grammar
    from .lazy import NoCalls, OnCall
    from .lookup import Lookup
    from .prefix import Node


@dataclass(slots=True, eq=False)
class Sequence:
    """`tokens` is prompt and completion; the KV of the first `n_computed` of them is in the cells of `seq`."""

    submit: Submit
    seq: int
    sampler: Sampler
    piece: Callable[[int], bytes]  # what a token adds to its text
    lookup: Lookup | None = None
    drafted: Drafted | None = None
    # Asked for with every token, so these are no properties.
    name: tuple[str, int] = field(init=False)
    n_prompt: int = field(init=False)
    tokens: list[int] = field(init=False)
    text: TextStream = field(init=False)
    unsent: str = ""  # text of a replay that the daemon has not seen
    n_computed: int = 0
    grammar: Grammar | OnCall | NoCalls | None = None
    draft: list[int] = field(default_factory=list)  # guesses at what follows `tokens`, in the call that is due
    n_guessed: int = 0  # cells it has beyond the computed ones, for guesses that were not right so far
    n_drafted: int = 0
    n_accepted: int = 0
    held: Node | None = None  # where its cells that the tree keeps end
    n_cached: int = 0  # of the computed ones, those that others had computed
    leader: Sequence | None = None  # who computes what it needs next, so that it waits
    n_shared: int = 0  # its first tokens up to here need no cells of its own, or will not
    started_s: float | None = None  # the first prompt row was computed
    first_s: float | None = None  # the first token of this attempt was drawn

    def __post_init__(self) -> None:
        self.name = self.submit.job, self.submit.attempt
        self.n_prompt = self.submit.n_prompt
        self.tokens = list(self.submit.tokens)
        self.text = TextStream(self.submit.params.stop, sent_bytes=self.submit.sent_bytes)

    @property
    def n_completion(self) -> int:
        return len(self.tokens) - self.n_prompt

    @property
    def n_own(self) -> int:
        """Rows that were computed for it."""
        return self.n_computed - self.n_cached

    @property
    def n_left(self) -> int:
        """Rows to compute before the next token can be drawn."""
        return len(self.tokens) - self.n_computed

    @property
    def decoding(self) -> bool:
        """Only the last token is missing, and something was drawn before: one row a step."""
        return self.n_computed >= self.n_prompt and len(self.tokens) == self.n_computed + 1

    @property
    def form_field(self) -> str:
        """Of the request, where its form comes from."""
        return "response_format" if self.submit.params.calls is None else "tools"

    def replay(self) -> None:
        """Feed the text of what an earlier attempt generated."""
        self.unsent = "".join(self.text.feed(self.piece(token)) for token in self.tokens[self.n_prompt :])

    def add(self, token: int) -> str:
        """Append a drawn token; returns the text that is now decided."""
        self.tokens.append(token)
        text = self.unsent + self.text.feed(self.piece(token))
        self.unsent = ""
        return text

    def tail(self) -> str:
        """Text still held back at the end."""
        text = self.unsent + self.text.flush()
        self.unsent = ""
        return text

    def timings_ms(self, now_s: float) -> tuple[float, float]:
        """(prefill, decode)."""
        started_s = now_s if self.started_s is None else self.started_s
        first_s = now_s if self.first_s is None else self.first_s
        return (first_s - started_s) * 1e3, (now_s - first_s) * 1e3
