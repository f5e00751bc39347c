"""What MATRIX.md points at is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROWS = [line for line in Path(__file__).with_name("MATRIX.md").read_text().splitlines() if line.startswith("| ")]
POINTER = re.compile(r"`(?P<file>[\w/]+\.py)?(?:::(?P<test>\w+))?`")


def pointers(row: str) -> list[tuple[str, str]]:
    """(file below tests, test or ""); `::name` alone is in the file before."""
    found, last = [], ""
    for match in POINTER.finditer(row):
        if match["file"] or match["test"]:
            last = (match["file"] or last).removeprefix("tests/")
            found.append((last, match["test"] or ""))
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:6].strip(" |-"))
def test_a_row_points_at_what_is_there(row: str) -> None:
    for file, test in pointers(row):
        text = (TESTS / file).read_text()
        assert not test or re.search(rf"^(async )?def {test}\(", text, re.MULTILINE), (file, test)


def test_most_rows_point_somewhere() -> None:
    assert sum(bool(pointers(row)) for row in ROWS) > 30
