"""Lines reach their file in order; a pipe that nobody empties, or that is broken, costs lines and no time."""

from __future__ import annotations

import logging
import os
import re
import time
from typing import TYPE_CHECKING

from inferd.daemon.system import logbook
from inferd.daemon.system.logbook import Logbook

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def record(text: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("x", logging.INFO, "", 0, text, values, None)


def read_until(fd: int, wanted: bytes) -> bytes:
    found = b""
    while wanted not in found:
        found += os.read(fd, 1 << 16)
    return found


def test_lines_come_in_order_and_are_there_after_a_flush(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        book = Logbook(file.fileno())
        for i in range(100):
            book.handle(record("line %d", i))
        book.handle(record("half a pair: \ud800"))
        book.flush()
    lines = path.read_text().splitlines()
    said = [line.partition(" x: ")[2] for line in lines]
    assert said == [*(f"line {i}" for i in range(100)), "half a pair: \\ud800"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO   ", lines[0].partition(" x: ")[0])


def test_the_journal_gets_levels_and_no_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        stat = os.fstat(file.fileno())
        assert not logbook.is_journal(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")
        book = Logbook(file.fileno())
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
            book.handle(logging.LogRecord("x", level, "", 0, "one\ntwo", (), None))
        book.flush()
    assert path.read_text().splitlines() == [f"<{n}>{text}" for n in (7, 6, 4, 3, 2) for text in ("x: one", "two")]


def test_a_pipe_that_nobody_empties_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logbook, "FLUSH_S", 0.05)
    end, sink = os.pipe()
    book = Logbook(sink)
    n_lines = 2 * logbook.MOST_LINES
    for i in range(n_lines):
        book.handle(record("%d " + "x" * 200, i))
    start_s = time.monotonic()
    book.flush()
    assert time.monotonic() - start_s < 5.0
    found = read_until(end, b"were lost")
    assert b" x: 0 xxx" in found.splitlines()[0]
    book.handle(record("the end"))
    read_until(end, b"the end\n")
    os.close(end)
    os.close(sink)


def test_a_pipe_that_is_broken_is_written_to_in_vain() -> None:
    end, sink = os.pipe()
    os.close(end)
    book = Logbook(sink)
    book.handle(record("to nobody"))
    book.flush()
    assert book._lines.unfinished_tasks == 0
    os.close(sink)


def test_what_cannot_be_made_a_line_is_no_exception(capsys: pytest.CaptureFixture[str]) -> None:
    end, sink = os.pipe()
    book = Logbook(sink)
    book.handle(record("%d", "no number"))
    book.handle(record("goes on"))
    assert read_until(end, b"\n").endswith(b" x: goes on\n")
    assert "no number" in capsys.readouterr().err
    os.close(end)
    os.close(sink)
