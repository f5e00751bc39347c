"""Requests for tensors as one call sees them: how many rows they bring, how long those are, and who may join whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..tensors import cost_tokens
from .roles import IDS, roles_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import numpy.typing as npt

    from ..messages import Infer, Tensor
    from .session import Port

    Array = npt.NDArray[Any]


class Shape:
    """`max_rows`: of a call; 0: requests never share one. `sequence`: the axis along which they are filled up."""

    def __init__(self, inputs: Sequence[Port], outputs: Sequence[Port], max_rows: int) -> None:
        roles = roles_of(inputs, outputs)
        self.shares = roles.batched and max_rows > 1
        self.sequence = roles.sequence if self.shares else ""
        self._axes = {port.name: port.axes for port in (*inputs, *outputs)}
        self._has_texts = IDS in {port.name for port in inputs}

    def n_rows(self, tensors: Sequence[Tensor]) -> int:
        return max(1, tensors[0].shape[0]) if self.shares else 1

    def length(self, tensors: Sequence[Tensor]) -> int:
        """Of the rows, along the axis that may be padded; 0: they have none."""
        return next((t.shape[1] for t in tensors if t.name == IDS), 0) if self.sequence else 0

    def n_tokens(self, tensors: Sequence[Tensor]) -> int:
        """What the request costs: its tokens where it has any, else its rows."""
        for tensor in tensors:
            if self._has_texts and tensor.name == IDS:
                return int(np.prod(tensor.shape))
        return cost_tokens(self.n_rows(tensors), tensors)

    def kind(self, order: Infer) -> Hashable:
        """Equals may share a call. One without rows, or whose tensors do not go together, is computed alone."""
        if not self.shares or not all(tensor.shape and tensor.shape[0] for tensor in order.inputs):
            return object()
        if self.sequence and len({tensor.shape[1] for tensor in order.inputs}) > 1:
            return object()
        each = tuple(sorted((t.name, t.datatype, *self._fixed(t)) for t in order.inputs))
        return "tensors", order.salt, tuple(order.outputs), each

    def _fixed(self, tensor: Tensor) -> tuple[int, ...]:
        """Sizes that must be equal; -1 for one that is filled up."""
        axes = self._axes[tensor.name]
        return tuple(
            -1 if self._is_padded(axis) else size for axis, size in zip(axes[1:], tensor.shape[1:], strict=True)
        )

    def _is_padded(self, axis: int | str) -> bool:
        return bool(self.sequence) and axis == self.sequence

    def join(self, parts: Sequence[Mapping[str, Array]], pad: int) -> dict[str, Array]:
        """The inputs of one call: the rows of all, the shorter ones filled up, which the mask tells."""
        if len(parts) == 1:
            return dict(parts[0])
        longest = max(part[IDS].shape[1] for part in parts) if self.sequence else 0
        return {
            name: np.concatenate([self._filled(name, part[name], longest, pad) for part in parts]) for name in parts[0]
        }

    def _filled(self, name: str, array: Array, longest: int, pad: int) -> Array:
        if not self.sequence or array.shape[1] == longest:
            return array
        value = pad if name == IDS else 0
        return np.pad(array, ((0, 0), (0, longest - array.shape[1])), constant_values=value)

    def part(self, name: str, output: Array, first: int, n_rows: int, length: int) -> Array:
        """Of an output of a call what belongs to the rows of one request, cut back to their length."""
        rows = output[first : first + n_rows]
        if not self.sequence:
            return rows
        cut = tuple(slice(length) if self._is_padded(axis) else slice(None) for axis in self._axes[name])
        return rows[cut]
