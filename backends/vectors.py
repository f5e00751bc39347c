"""What every engine that embeds does with a vector before it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]


def finish(vectors: Floats, *, normalize: bool, dimensions: int) -> bytes:
    """The first `dimensions` values of each row (0: all), then, if wanted, brought to a length of 1, as 32-bit floats.

    A vector that is cut is normalized after that, as models that may be cut are trained. One of zeros stays as it is.
    """
    kept = vectors[:, : dimensions or None].astype(np.float64)
    if normalize:
        lengths = np.linalg.norm(kept, axis=1, keepdims=True)
        kept /= np.where(lengths > 0, lengths, 1.0)
    return kept.astype(np.float32).tobytes()
