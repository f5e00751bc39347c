"""When a request will be served: what was measured of its model, and how far such forecasts have been off.

A slot is busy with a request for `prompt x prefill + output x decode`, both measured on requests that finished under
the load of the moment, so that what they lose to each other is in the figures. The wait is how long the slots need for
the work before it. The interval around a forecast comes from the ratios of past outcomes to their forecasts (split
conformal prediction; Vovk et al.): it says 80 % when 80 % of the last ones fell into it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NEWEST = 0.1  # weight of the newest measurement in a mean
OUTPUT_TOKENS = 256  # of an answer nobody has limited, before one was seen
TOKENS_PER_BYTE = 0.3  # of a prompt, before one was read
WINDOW = 128  # outcomes that an interval is made from
FEW = 12  # outcomes before which it is only a guess
GUESS = (0.5, 2.0)
FLOW_S = 30.0  # what arrived so long ago counts as 1/e of what arrives now
LEAST_S = 3.0  # a burst at the beginning is not yet a flow


@dataclass(slots=True)
class Mean:
    """An exponentially weighted mean; None before the first value."""

    value: float | None = None

    def add(self, value: float) -> None:
        self.value = value if self.value is None else (1 - NEWEST) * self.value + NEWEST * value


class Interval:
    """The ratios of outcomes to their forecasts, and what they say about the next one."""

    def __init__(self) -> None:
        self._ratios: deque[float] = deque(maxlen=WINDOW)
        self._ordered: list[float] = []  # the same, sorted for whoever asks first; empty: since the last one came

    def add(self, forecast_ms: float, outcome_ms: float) -> None:
        self._ratios.append(max(outcome_ms, 1e-3) / max(forecast_ms, 1e-3))
        self._ordered = []

    def around(self, forecast_ms: float, share: float = 0.8) -> tuple[float, float]:
        """(low, high) in ms, such that `share` of the outcomes fall between them."""
        side = (1 - share) / 2
        return forecast_ms * self.quantile(side), forecast_ms * self.quantile(1 - side)

    def quantile(self, q: float) -> float:
        """Of the ratios, on the safe side of the sample's own quantile."""
        n = len(self._ratios)
        if n < FEW:
            return GUESS[0] if q < 0.5 else GUESS[1]
        ordered = self._ordered = self._ordered or sorted(self._ratios)
        rank = math.floor(q * (n + 1)) if q < 0.5 else math.ceil(q * (n + 1))
        return ordered[min(n, max(1, rank)) - 1]


class Flow:
    """How much work arrives lately."""

    def __init__(self, now_s: float) -> None:
        self._began_s = self._at_s = now_s
        self._work_ms = 0.0  # old work counts less

    def add(self, work_ms: float, now_s: float) -> None:
        """Slot time that was asked for."""
        self._work_ms = self._left_ms(now_s) + work_ms
        self._at_s = now_s

    def withdraw(self, work_ms: float, since_s: float, now_s: float) -> None:
        """What was added then is asked for elsewhere."""
        left_ms = work_ms * math.exp((since_s - now_s) / FLOW_S)
        self._work_ms = max(0.0, self._left_ms(now_s) - left_ms)  # sums of such are not exact
        self._at_s = now_s

    def rate(self, now_s: float) -> float:
        """Slot time asked for in a second, in ms."""
        seen_s = FLOW_S * -math.expm1((self._began_s - now_s) / FLOW_S)  # less, where not all of that time is known
        return self._left_ms(now_s) / max(seen_s, LEAST_S)

    def _left_ms(self, now_s: float) -> float:
        return self._work_ms * math.exp((self._at_s - now_s) / FLOW_S)


@dataclass(slots=True)
class Pace:
    """How fast one model is here, as measured."""

    prefill_ms: Mean = field(default_factory=Mean)  # a prompt token in its slot
    decode_ms: Mean = field(default_factory=Mean)  # an output token in its slot
    tokens_per_byte: Mean = field(default_factory=Mean)
    output_tokens: Mean = field(default_factory=Mean)  # where the request sets no limit
    output_share: Mean = field(default_factory=Mean)  # of max_tokens, where it does
    load_s: Mean = field(default_factory=Mean)
    # How good forecasts were: of the first token, by whether a slot was free, and of the end.
    first_token: dict[bool, Interval] = field(default_factory=lambda: {True: Interval(), False: Interval()})
    finish: Interval = field(default_factory=Interval)

    @property
    def known(self) -> bool:
        return self.decode_ms.value is not None

    def on_prompt(self, n_bytes: int, n_tokens: int) -> None:
        if n_bytes:
            self.tokens_per_byte.add(n_tokens / n_bytes)

    def on_finished(
        self, prompt_tokens: int, output_tokens: int, prefill_ms: float, decode_ms: float, max_tokens: int | None
    ) -> None:
        """`prompt_tokens` are those that were computed; the times are those of its slot."""
        if prompt_tokens:
            self.prefill_ms.add(prefill_ms / prompt_tokens)
        if output_tokens > 1:
            self.decode_ms.add(decode_ms / (output_tokens - 1))
        if max_tokens is None:
            self.output_tokens.add(output_tokens)
        elif not max_tokens:
            self.decode_ms.add(0.0)  # vectors, where no token is ever drawn
        else:
            self.output_share.add(output_tokens / max_tokens)

    def expected_prompt(self, n_bytes: int) -> int:
        """Tokens of a prompt that nobody has read yet."""
        ratio = self.tokens_per_byte.value
        return max(1, round(n_bytes * (TOKENS_PER_BYTE if ratio is None else ratio)))

    def expected_output(self, max_tokens: int | None, room: int) -> int:
        """Tokens of an answer; `room` is what the context leaves."""
        if max_tokens is None:
            mean = self.output_tokens.value
            return max(1, min(room, OUTPUT_TOKENS if mean is None else round(mean)))
        share = self.output_share.value
        return max(1, min(room, round(max_tokens * (1.0 if share is None else share))))

    def slot_ms(self, prompt_tokens: float, output_tokens: float) -> float:
        """How long a slot is busy; 0 while nothing was measured."""
        return prompt_tokens * (self.prefill_ms.value or 0.0) + output_tokens * (self.decode_ms.value or 0.0)


def wait_ms(residuals_ms: Sequence[float], work_ms: float) -> float:
    """When a slot is free for somebody who comes after `work_ms` of slot time.

    `residuals_ms`: how long each slot is still busy (0: free). The work flows into the slots as they become free: the
    answer is the level t with sum(max(0, t - residual)) = work.
    """
    level, n = 0.0, 0
    for residual_ms in sorted(residuals_ms):
        if n and work_ms <= n * (residual_ms - level):
            break
        work_ms -= n * (residual_ms - level)
        level, n = residual_ms, n + 1
    return level + work_ms / n if n else 0.0
