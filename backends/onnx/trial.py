"""Whether rows of one call are computed apart from each other: tried once, before requests of several clients meet.

A graph whose first axis is free everywhere need not keep rows apart: it may normalise over them. Only a call tells.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from .refusal import InputRefused
from .roles import MASK, SEGMENTS
from .session import dtype_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from .session import Port, Session

    Array = npt.NDArray[Any]

log = logging.getLogger(__name__)

SIZES = (16, 64, 224)  # of free axes beyond the first: texts, features, pictures
CLOSE = {"rtol": 1e-3, "atol": 1e-4}
ALIKE = 0.99  # cosine, where scales are those of a whole call


def shares_safely(session: Session, dynamic: bool) -> bool:
    """False also for a graph that takes none of the inputs that we know to make."""
    names = [port.name for port in session.outputs if port.datatype]
    for size in SIZES:
        feeds = {port.name: _example(port, size, seed) for seed, port in enumerate(session.inputs)}
        try:
            together = session.run(feeds, names)
            alone = session.run({name: array[:1] for name, array in feeds.items()}, names)
        except InputRefused:
            continue
        return all(_alike(two[:1], one, dynamic) for two, one in zip(together, alone, strict=True))
    log.info("no call could be made up for this graph: its requests are computed one by one")
    return False


def _example(port: Port, size: int, seed: int) -> Array:
    """Two rows that are not the same."""
    shape = [2, *(axis if isinstance(axis, int) else size for axis in port.axes[1:])]
    dtype = np.dtype(dtype_of(port.datatype))
    if dtype.hasobject:
        return np.full(shape, "a", object)
    if port.name == MASK:
        return np.ones(shape, dtype)
    if port.name == SEGMENTS:
        return np.zeros(shape, dtype)
    draw = np.random.default_rng(seed)
    if dtype.kind == "f":
        return draw.standard_normal(shape).astype(dtype)
    return draw.integers(0, 2, shape).astype(dtype)


def _alike(ours: Array, theirs: Array, dynamic: bool) -> bool:
    if ours.shape != theirs.shape:
        return False
    if ours.dtype.kind != "f":
        return dynamic or bool(np.array_equal(ours, theirs))
    if not dynamic:
        return bool(np.allclose(ours, theirs, **CLOSE, equal_nan=True))
    a, b = ours.ravel().astype(np.float64), theirs.ravel().astype(np.float64)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths >= ALIKE if lengths else not (a.any() or b.any())
