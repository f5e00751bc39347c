"""Whether rows of one call are computed apart from each other: tried once, before requests of several clients meet.

A graph whose first axis is free everywhere need not keep rows apart: it may normalise over them. Nor does one that
takes a mask have to follow it: it may have the last column stand for all. Only a call tells.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from .refusal import InputRefused
from .roles import MASK, PAST, SEGMENTS
from .session import dtype_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from .session import Port, Session
    from .shape import Shape
    from .texts import Texts

    Array = npt.NDArray[Any]

log = logging.getLogger(__name__)

SIZES = (16, 64, 224)  # of free axes beyond the first: texts, features, pictures
LENGTHS = (16, 11)  # of two texts, of which the shorter is filled up
CLOSE = {"rtol": 1e-3, "atol": 1e-4}
ALIKE = 0.99  # cosine, where scales are those of a whole call


def shares_safely(session: Session, dynamic: bool) -> bool:
    """False also for a graph that takes none of the inputs that we know to make."""
    names = [port.name for port in session.outputs if port.datatype]
    for size in SIZES:
        feeds = {port.name: _example(port, size, seed) for seed, port in enumerate(session.inputs)}
        try:
            together = session.run(feeds, names)
            alone = [session.run({name: array[i : i + 1] for name, array in feeds.items()}, names) for i in range(2)]
        except InputRefused:
            continue
        # Both rows: each may depend on those before it alone.
        return all(
            _alike(two[i : i + 1], one, dynamic) for i in range(2) for two, one in zip(together, alone[i], strict=True)
        )
    log.info("no call could be made up for this graph: its requests are computed one by one")
    return False


def pads_safely(session: Session, shape: Shape, pad: int, dynamic: bool) -> bool:
    """Whether a request for tensors may be filled up to the length of another one."""
    names = [port.name for port in session.outputs if port.datatype]
    wholes = [{port.name: _example(port, n, i) for i, port in enumerate(session.inputs)} for n in LENGTHS]
    parts = [{name: array[:1] for name, array in whole.items()} for whole in wholes]
    try:
        together = session.run(shape.join(parts, pad), names)
        alone = [session.run(part, names) for part in parts]
    except InputRefused:
        return False
    return all(
        _alike(shape.part(name, both, i, 1, n), one, dynamic)
        for i, n in enumerate(LENGTHS)
        for name, both, one in zip(names, together, alone[i], strict=True)
    )


def reads_apart(session: Session, texts: Texts, lengths: Sequence[int], dynamic: bool) -> bool:
    """Whether texts of these lengths give in one call what they give alone."""
    draw = np.random.default_rng(0)
    tokens = [draw.integers(0, 2, n).tolist() for n in lengths]
    try:
        (together,) = session.run(texts.feeds(tokens, [0] * len(tokens)), [texts.output])
        alone = [session.run(texts.feeds([row], [0]), [texts.output])[0] for row in tokens]
    except InputRefused:
        return False
    ours = texts.vectors(together, lengths)
    return all(_alike(ours[i], texts.vectors(one, lengths[i : i + 1])[0], dynamic) for i, one in enumerate(alone))


def _example(port: Port, size: int, seed: int) -> Array:
    """Two rows that are not the same."""
    shape = [2, *(axis if isinstance(axis, int) else size for axis in port.axes[1:])]
    dtype = np.dtype(dtype_of(port.datatype))
    if PAST.fullmatch(port.name) and len(shape) == 4:
        shape[2] = 0
    if dtype.hasobject:
        array = np.full(shape, "a", object)
        array[1] = "b"
        return array
    if port.name == MASK:
        return np.ones(shape, dtype)
    if port.name == SEGMENTS:
        return np.zeros(shape, dtype)
    draw = np.random.default_rng(seed)
    if dtype.kind == "f":
        return draw.standard_normal(shape).astype(dtype)
    whole = draw.integers(0, 2, shape)
    whole[1] = 1 - whole[0]
    return whole.astype(dtype)


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
