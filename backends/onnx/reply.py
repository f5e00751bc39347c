"""One answer while it is written by a graph with a past."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..messages import Delta, Finished, FinishReason, Started, Stopped
from ..sampling import InvalidLogits, Sampler, logprob
from ..text import TextStream

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    import numpy as np
    import numpy.typing as npt

    from ..messages import Event, Submit
    from .past import Past

    Row = npt.NDArray[np.float32]


@dataclass(slots=True, eq=False)
class Reply:
    """`piece`: what one more token adds to its text, as bytes; it is asked for each token once, in order.

    `name_of`: what any token is by itself.
    """

    submit: Submit
    sampler: Sampler
    piece: Callable[[int], bytes]
    name_of: Callable[[int], bytes]
    tokens: list[int] = field(init=False)
    text: TextStream = field(init=False)
    unsent: str = ""  # text of a replay that the daemon has not seen
    past: Past | None = None  # its own, until it joins the others
    n_computed: int = 0
    started_s: float | None = None
    first_s: float | None = None

    def __post_init__(self) -> None:
        self.tokens = list(self.submit.tokens)
        self.text = TextStream(self.submit.params.stop, sent_bytes=self.submit.sent_bytes)
        self.unsent = "".join(self.text.feed(self.piece(token)) for token in self.tokens[self.submit.n_prompt :])

    @property
    def name(self) -> tuple[str, int]:
        return self.submit.job, self.submit.attempt

    @property
    def left(self) -> list[int]:
        """Tokens to compute before the next one can be drawn."""
        return self.tokens[self.n_computed :]

    def start(self, events: list[Event]) -> None:
        if self.started_s is None:
            self.started_s = time.perf_counter()
            events.append(Started(*self.name, self.submit.n_prompt, 0))

    def draw(self, row: Row, eog: Container[int], n_ctx: int, events: list[Event]) -> tuple[FinishReason, str] | None:
        """The next token from its logits, which are changed; why it ends with it, or None."""
        params, index = self.submit.params, len(self.tokens) - self.submit.n_prompt
        raw = None if params.logprobs is None else row.copy()
        try:
            token = self.sampler.sample(row, self.tokens, index)
            said = None if raw is None else [logprob(raw, token, params.logprobs or 0, self.name_of)]
        except InvalidLogits:
            return FinishReason.ERROR, "the model produced invalid numbers"
        if self.first_s is None:
            self.first_s = time.perf_counter()
        if token in eog:
            return FinishReason.STOP, ""
        self.tokens.append(token)
        text, self.unsent = self.unsent + self.text.feed(self.piece(token)), ""
        events.append(Delta(*self.name, index, [token], text, said))
        return self.over(n_ctx)

    def over(self, n_ctx: int) -> tuple[FinishReason, str] | None:
        """Whether what is there is a whole answer, or cannot go on."""
        if self.text.stopped:
            return FinishReason.STOP, ""
        if len(self.tokens) - self.submit.n_prompt >= self.submit.params.max_tokens or len(self.tokens) >= n_ctx:
            return FinishReason.LENGTH, ""
        return None

    def finish(self, reason: FinishReason, error: str, events: list[Event]) -> None:
        now_s = time.perf_counter()
        self.start(events)
        started_s, first_s = self.started_s or now_s, self.first_s or now_s
        tail = self.unsent + self.text.flush()
        n_tokens = len(self.tokens) - self.submit.n_prompt
        times_ms = (first_s - started_s) * 1e3, (now_s - first_s) * 1e3
        events.append(Finished(*self.name, reason, tail, n_tokens, *times_ms, error, self.n_computed))

    def stop(self, events: list[Event], *, parked: bool = False) -> None:
        n_tokens = len(self.tokens) - self.submit.n_prompt
        events.append(Stopped(*self.name, n_tokens, parked, self.n_computed))
