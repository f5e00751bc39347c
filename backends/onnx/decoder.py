"""One step of a graph with a past: tokens and what was computed before go in, logits and one position more come out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .past import Past
from .roles import IDS, KEEP, LOGITS, MASK, POSITIONS, USE_CACHE, roles_of
from .session import dtype_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from .session import Held, Session

    Array = npt.NDArray[Any]


class Decoder:
    """`alone`: rows of unequal length cannot share a call, as the graph counts positions from the left, masked or not:
    it is not told them, or has GroupQueryAttention (`counts`)."""

    def __init__(self, session: Session, *, counts: bool, n_vocab: int) -> None:
        self._session = session
        roles = roles_of(session.inputs, session.outputs)
        self._inputs = {port.name: port for port in session.inputs}
        rows, self._length = self._inputs[IDS].axes or ("", "")
        self.alone = counts or POSITIONS not in self._inputs or rows == 1
        self._past, self._outputs = roles.past, [LOGITS, *roles.present]
        logits = next(port for port in session.outputs if port.name == LOGITS)
        last = logits.axes[-1] if logits.axes else ""
        self.n_vocab = last if isinstance(last, int) else n_vocab

    def begin(self) -> Past:
        """Of one row, without a position."""
        return Past(self._session, [self._session.hold(self._empty(name)) for name in self._past], [0])

    def _empty(self, name: str) -> Array:
        port = self._inputs[name]
        heads, values = port.axes[1], port.axes[3]
        assert isinstance(heads, int)
        assert isinstance(values, int)
        return np.zeros((1, heads, 0, values), dtype_of(port.datatype))

    def piece(self, past: Past, tokens: Sequence[int], usual: int) -> Sequence[int]:
        """So many of these fit the next call. Of two graphs in one file that for prompts begins anew each time, and the
        other one is made for a single token."""
        if USE_CACHE in self._inputs:
            return tokens[:1] if past.n_positions else tokens
        return tokens[: self._length if isinstance(self._length, int) else usual]

    def compute(self, past: Past, tokens: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Logits after the last token of each row, of which all have equally many. Raises InferRefused."""
        ids = np.asarray(tokens, np.int64)
        n_new = ids.shape[1]
        positions = np.asarray(past.lengths)[:, None] + np.arange(n_new)[None, :]
        given: dict[str, Array] = {
            IDS: ids,
            MASK: past.mask(n_new),
            POSITIONS: positions,
            USE_CACHE: np.array([past.n_positions > 0]),
        }
        if KEEP in self._inputs:
            given[KEEP] = np.ones([1] * len(self._inputs[KEEP].axes))
        feeds: dict[str, Held] = {
            name: self._session.hold(array.astype(dtype_of(self._inputs[name].datatype)))
            for name, array in given.items()
            if name in self._inputs
        }
        feeds.update(zip(self._past, past.values, strict=True))
        logits, *present = self._session.run_held(feeds, self._outputs)
        past.grown(present, n_new)
        return np.asarray(logits.numpy()[:, -1], np.float32)
