"""Reading arrivals, and what is made of them."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.domain.request import Priority
from inferd.daemon.replay.arrivals import (
    MAX_COUNT,
    OWN,
    Arrival,
    Shape,
    TraceError,
    drawn,
    read_trace,
    shaped,
    write_trace,
)

if TYPE_CHECKING:
    from pathlib import Path

CHAT, NORMAL, BATCH = Priority.INTERACTIVE, Priority.NORMAL, Priority.BATCH
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens"
VTC = "req_time_s,client,prompt_len,output_len"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trace.csv"


def read(file: Path, *lines: str, newline: str = "\n") -> list[Arrival]:
    file.write_text(newline.join(lines) + newline, newline="")
    return read_trace(file)


def test_azures_dates_count_from_the_first_one(file: Path) -> None:
    rows = ("2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 18:17:05.2299600,34,12")
    first, second = read(file, AZURE, *rows, newline="\r\n")
    assert (first.at_s, first.prompt_tokens, first.output_tokens) == (0.0, 4808, 10)
    assert second.at_s == pytest.approx(1.25, abs=1e-4)


def test_vtcs_clients_are_tenants(file: Path) -> None:
    assert read(file, VTC, "0.2,13,5,199", "") == [Arrival(0.0, 5, 199, tenant="13")]


def test_a_recording_of_our_own_comes_back_as_it_was(file: Path) -> None:
    arrivals = [Arrival(0.0, 5, 6, 'a, "b"', BATCH, "demo", 700), Arrival(0.1 + 0.2, 1, 1)]
    write_trace(file, arrivals)
    assert read_trace(file) == arrivals
    assert file.read_text().splitlines()[0] == ",".join(OWN)


def test_arrivals_are_in_the_order_of_time(file: Path) -> None:
    assert [a.at_s for a in read(file, VTC, "2,x,1,1", "0,x,1,1", "1,x,1,1")] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ((VTC, "0,x,1,1", "x,x,1,1"), ":3: req_time_s must be a time in seconds from 0, not 'x'"),
        ((VTC, "-1,x,1,1"), ":2: req_time_s must be"),
        ((VTC, "nan,x,1,1"), ":2: req_time_s must be"),
        ((VTC, "0,x,0,1"), ":2: prompt_len must be a whole number from 1 to 16,777,216, not '0'"),
        ((VTC, "0,x,1,1.5"), ":2: output_len must be a whole number from 1 to 16,777,216, not '1.5'"),
        ((VTC, f"0,x,{'9' * 5000},1"), ":2: prompt_len must be"),
        ((VTC, "0,x,1"), ":2: 3 fields where the header has 4"),
        ((AZURE, "yesterday,1,1"), ":2: TIMESTAMP must be a date with a time, not 'yesterday'"),
        ((",".join(OWN), "0,t,urgent,m,1,1,"), ":2: priority must be one of interactive, normal, batch, not 'urgent'"),
        ((",".join(OWN), "0,t,batch,m,1,1,soon"), ":2: deadline_ms must be a whole number"),
        (("a,b,c", "1,2,3"), ":1: no trace has the columns 'a, b, c'; known are: TIMESTAMP, "),
        ((VTC,), ": there is no request in it"),
        (("",), ":1: no trace has"),
    ],
)
def test_what_is_wrong_is_named(file: Path, lines: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(TraceError) as caught:
        read(file, *lines)
    assert f"{file}{complaint}" in str(caught.value)


def test_a_file_that_cannot_be_read_is_said_to_be_so(file: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        read_trace(file)
    file.write_bytes(b"req_time_s,client\n\xff\xfe")
    with pytest.raises(TraceError, match="not UTF-8 at byte"):
        read_trace(file)


TRACE = [Arrival(float(i), 10 + i, 100 + i, tenant=f"t{i}") for i in range(10)]


def test_the_window_has_its_first_second_and_not_its_last() -> None:
    assert [a.at_s for a in shaped(TRACE, Shape(from_s=2.0, to_s=5.0))] == [0.0, 1.0, 2.0]


def test_speed_brings_arrivals_closer_together() -> None:
    assert [a.at_s for a in shaped(TRACE, Shape(from_s=4.0, speed=10.0))] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_long_ones_are_cut() -> None:
    cut = shaped(TRACE, Shape(max_prompt_tokens=12, max_output_tokens=105))
    assert [a.prompt_tokens for a in cut[:4]] == [10, 11, 12, 12]
    assert cut[9].output_tokens == 105


def test_a_deadline_is_given_to_those_of_the_class_that_have_none() -> None:
    mixed = [Arrival(0, 1, 1, priority=BATCH), Arrival(0, 1, 1, priority=BATCH, deadline_ms=5), Arrival(0, 1, 1)]
    assert [a.deadline_ms for a in shaped(mixed, Shape(deadlines_ms={BATCH: 70}))] == [70, 5, None]


def test_what_is_recorded_stays_unless_shares_are_given() -> None:
    assert shaped(TRACE, Shape()) == TRACE


def test_shares_are_drawn_by_place_alone() -> None:
    shape = Shape(classes={CHAT: 1, BATCH: 4}, tenants={"a": 1, "b": 1})
    whole = shaped(TRACE, shape)
    assert whole == shaped(TRACE, shape)
    later = shaped(TRACE, Shape(from_s=5.0, classes=shape.classes, tenants=shape.tenants))
    assert [(a.priority, a.tenant) for a in later] == [(a.priority, a.tenant) for a in whole[5:]]


def test_shares_come_out_as_asked_and_independent_of_each_other() -> None:
    trace = [Arrival(0.0, 1, 1)] * 4000
    shape = Shape(classes={CHAT: 0.2, BATCH: 0.8}, tenants={"a": 10, "b": 10})
    counts = Counter((a.priority, a.tenant) for a in shaped(trace, shape))
    assert counts[CHAT, "a"] == pytest.approx(400, abs=80)
    assert counts[CHAT, "b"] == pytest.approx(400, abs=80)
    assert counts[BATCH, "a"] == pytest.approx(1600, abs=130)


@given(st.dictionaries(st.text(max_size=3), st.floats(1e-6, 1e6), min_size=1, max_size=5), st.integers(0, MAX_COUNT))
def test_a_draw_is_always_one_of_them(shares: dict[str, float], i: int) -> None:
    assert drawn(shares, "x", i) in shares
    assert drawn({"only": math.pi}, "x", i) == "only"
