"""A snapshot is facts all the way down: frozen, and nothing in it that a wire cannot carry."""

from __future__ import annotations

from typing import get_args, get_type_hints

import msgspec
import pytest

from inferd.daemon.domain import snapshot
from inferd.daemon.domain.snapshot import Snapshot

ROWS = [it for it in vars(snapshot).values() if isinstance(it, type) and issubclass(it, msgspec.Struct)]
PLAIN = {str, int, float, bool, type(None)}


def leaves(hint: object) -> set[object]:
    """The types that a field's annotation is made of."""
    inside = [part for part in get_args(hint) if part is not ...]
    return set().union(*map(leaves, inside)) if inside else {hint}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
def test_a_row_is_frozen_and_made_of_plain_values_and_rows(row: type[msgspec.Struct]) -> None:
    assert row.__struct_config__.frozen
    hints = get_type_hints(row)
    for field in msgspec.structs.fields(row):
        assert leaves(hints[field.name]) <= {*PLAIN, *ROWS}, field.name


def test_every_row_is_part_of_the_snapshot() -> None:
    used: set[object] = set()
    left: set[object] = {Snapshot}
    while left:
        used |= left
        inside = set().union(*(leaves(hint) for row in left for hint in get_type_hints(row).values()))
        left = (inside & {*ROWS}) - used
    assert used == {*ROWS}
