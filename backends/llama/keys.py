"""Typed access to the keys of a GGUF header; a wrong type or range is a CorruptModel that names the key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..facts import CorruptModel
from .header import ArrayLength

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .header import Value

MAX_WIDTH = 1 << 20  # of an embedding, a head, a feed-forward layer


def whole(
    keys: Mapping[str, Value], key: str, *, default: int | None = None, least: int = 0, most: int = MAX_WIDTH
) -> int:
    value = keys.get(key, default)
    if value is None:
        raise CorruptModel(f"{key} is missing")
    if type(value) is not int:
        raise CorruptModel(f"{key} must be a whole number")
    if not least <= value <= most:
        raise CorruptModel(f"{key} is {value:,} but must be between {least:,} and {most:,}")
    return value


def per_layer(keys: Mapping[str, Value], key: str, n_layers: int, default: int = 0) -> tuple[int, ...]:
    """A key that holds one number for all layers, or an array with one for each."""
    value = keys.get(key, default)
    if not isinstance(value, tuple):
        return (whole(keys, key, default=default),) * n_layers
    if isinstance(value, ArrayLength) or len(value) < n_layers:
        n = value.n if isinstance(value, ArrayLength) else len(value)
        raise CorruptModel(f"{key} has {n:,} elements but the model has {n_layers} layers")
    numbers = tuple(n for n in value[:n_layers] if type(n) is int and 0 <= n <= MAX_WIDTH)
    if len(numbers) < n_layers:
        raise CorruptModel(f"{key} must hold whole numbers between 0 and {MAX_WIDTH:,}")
    return numbers
