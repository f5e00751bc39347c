"""Texts, as tokens, to the inputs of a graph, and its outputs to one vector each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine import LoadError
from ..vectors import finish
from .roles import HIDDEN, IDS, LOGITS, MASK, POOLED, POSITIONS, SEGMENTS, TEXT_INPUTS
from .session import dtype_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy.typing as npt

    from ..facts import Pooling, Task
    from ..vectors import Floats
    from .session import Port

    Array = npt.NDArray[Any]


class Texts:
    """How one model reads texts. `pad`: the token that fills up the shorter ones of a call. Raises LoadError."""

    def __init__(self, task: Task, pooling: Pooling, inputs: Sequence[Port], outputs: Sequence[Port], pad: int) -> None:
        self._task, self._pooling, self.pad = task, pooling, pad
        self._inputs = {port.name: dtype_of(port.datatype) for port in inputs if port.name in TEXT_INPUTS}
        self._others = [port for port in inputs if port.name not in TEXT_INPUTS]
        lengths = [port.axes[1] for port in inputs if port.name == IDS and len(port.axes) == 2]
        self._length = next((n for n in lengths if isinstance(n, int)), 0)  # the only one that the graph takes
        names = [port.name for port in outputs]
        wanted = (LOGITS,) if task in ("rank", "classify", "tag") else (POOLED, *HIDDEN)
        self.output = next((name for name in wanted if name in names), "")
        if not self.output:
            raise LoadError("unsupported", f"it has none of the outputs {', '.join(wanted)}")
        self.shares = True  # else each has a call of its own
        self.pads = MASK in self._inputs  # else all texts of a call must have one length

    def kind(self, salt: str, length: int) -> Hashable:
        """Equals may share a call."""
        return ("text", salt, 0 if self.pads else length) if self.shares else object()

    def feeds(self, tokens: Sequence[Sequence[int]], seconds: Sequence[int]) -> dict[str, Array]:
        """One row for each text; `seconds`: where its second part begins, 0 when it has none."""
        n_rows, n_columns = len(tokens), self._length or max(map(len, tokens))
        ids = np.full((n_rows, n_columns), self.pad, np.int64)
        mask = np.zeros((n_rows, n_columns), np.int64)
        segments = np.zeros((n_rows, n_columns), np.int64)
        for i, (row, second) in enumerate(zip(tokens, seconds, strict=True)):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
            if second:
                segments[i, second : len(row)] = 1
        positions = np.broadcast_to(np.arange(n_columns), ids.shape)
        every = {IDS: ids, MASK: mask, SEGMENTS: segments, POSITIONS: positions}
        feeds = {name: np.ascontiguousarray(every[name], dtype) for name, dtype in self._inputs.items()}
        return feeds | {port.name: _nothing(port, n_rows) for port in self._others}

    def vectors(self, output: Array, lengths: Sequence[int]) -> Floats | list[Floats]:
        """One row for each text: pooled over its own tokens, or its logits; where tokens are tagged, one for each."""
        if self._task == "tag":
            return [np.ascontiguousarray(output[i, :n], np.float32) for i, n in enumerate(lengths)]
        return self._rows(output, lengths)

    def _rows(self, output: Array, lengths: Sequence[int]) -> Floats:
        if output.ndim == 1:
            output = output[:, None]
        if output.ndim == 2:
            return output.astype(np.float32)
        hidden = output.astype(np.float32)
        if self._pooling == "cls":
            return np.ascontiguousarray(hidden[:, 0])
        if self._pooling == "last":
            return np.ascontiguousarray(hidden[np.arange(len(lengths)), np.asarray(lengths) - 1], np.float32)
        sums = [hidden[i, :n].sum(axis=0, dtype=np.float32) / np.float32(n) for i, n in enumerate(lengths)]
        return np.stack(sums)

    def finish(self, vector: npt.NDArray[np.float32], *, normalize: bool, dimensions: int) -> bytes:
        """As the order wants it; scores and logits are left as they are."""
        if self._task == "rank":
            return vector[:1].tobytes()
        if self._task in ("classify", "tag"):
            return vector.tobytes()
        return finish(vector[None], normalize=normalize, dimensions=dimensions)


def _nothing(port: Port, n_rows: int) -> Array:
    """What a graph that could go on from a past is given instead of one."""
    shape = [n_rows, port.axes[1], 0, port.axes[3]] if len(port.axes) == 4 else [1] * len(port.axes)
    return np.zeros([int(size) for size in shape], dtype_of(port.datatype))
