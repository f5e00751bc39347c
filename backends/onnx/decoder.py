"""One step of a graph with a past: tokens and what was computed before go in, logits and one position more come out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .past import Past
from .roles import IDS, LOGITS, MASK, POSITIONS, USE_CACHE, roles_of
from .session import dtype_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from .session import Held, Session

    Array = npt.NDArray[Any]


class Decoder:
    """`alone`: the graph knows no masked positions before a text (GroupQueryAttention counts from the left), so rows of
    unequal length cannot share a call."""

    def __init__(self, session: Session, *, alone: bool) -> None:
        self._session = session
        self.alone = alone
        roles = roles_of(session.inputs, session.outputs)
        self._inputs = {port.name: port for port in session.inputs}
        self._past, self._outputs = roles.past, [LOGITS, *roles.present]
        logits = next(port for port in session.outputs if port.name == LOGITS)
        last = logits.axes[-1]
        self.n_vocab = last if isinstance(last, int) else 0

    def begin(self) -> Past:
        """Of one row, without a position."""
        return Past(self._session, [self._session.hold(self._empty(name)) for name in self._past], [0])

    def _empty(self, name: str) -> Array:
        port = self._inputs[name]
        heads, values = port.axes[1], port.axes[3]
        assert isinstance(heads, int)
        assert isinstance(values, int)
        return np.zeros((1, heads, 0, values), dtype_of(port.datatype))

    def compute(self, past: Past, tokens: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Logits after the last token of each row, of which all have equally many. Raises InferRefused."""
        ids = np.asarray(tokens, np.int64)
        n_new = ids.shape[1]
        positions = np.asarray(past.lengths)[:, None] + np.arange(n_new)[None, :]
        given = {IDS: ids, MASK: past.mask(n_new), POSITIONS: positions, USE_CACHE: np.ones(1, np.bool_)}
        feeds: dict[str, Held] = {
            name: self._session.hold(np.ascontiguousarray(array, dtype_of(self._inputs[name].datatype)))
            for name, array in given.items()
            if name in self._inputs
        }
        feeds.update(zip(self._past, past.values, strict=True))
        logits, *present = self._session.run_held(feeds, self._outputs)
        past.grown(present, n_new)
        return np.asarray(logits.numpy()[:, -1], np.float32)
