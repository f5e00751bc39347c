"""What is written of a job next, and how one ends."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from msgspec.structs import replace as change

from inferd.backends.messages import FinishReason, SamplingParams
from inferd.daemon.domain.durable import DurableJob, Kept, Piece, State
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.request import Job, Priority, Request
from inferd.daemon.node.book import Book, as_of_now, outcome
from inferd.daemon.node.stream import Finished
from inferd.daemon.node.tape import Tape

ROW = DurableJob(id="r", tenant="t", model="m", priority=Priority.BATCH, created_s=1.0, n_tokens=4)
REQUEST = Request("r", "m", SamplingParams(max_tokens=1), Priority.BATCH, "t", prompt="x")
PIECE = Piece(4, [7, 8], [1, 1], "ab")


def tape() -> Tape:
    return Tape(Job(REQUEST, 0.0, 0), Kept())


def test_there_is_nothing_to_write_of_one_that_stands_still() -> None:
    assert Book(ROW).step() is None
    assert Book(ROW, tape()).step() is None


def test_tokens_are_written_once() -> None:
    book = Book(ROW, pending=[PIECE], goes_on=True)
    step = book.step()
    assert step is not None
    assert (step.at, step.pieces, step.prompt) == (4, (PIECE,), None)
    assert step.job == change(ROW, n_tokens=6, resumed=1)
    assert book.step() == step  # until it is on the disk
    more = Piece(6, [9], [1], "c")
    book.pending.append(more)
    book.written(step, 5.0)
    assert (book.row, book.pending, book.written_s) == (step.job, [more], 5.0)
    after = book.step()
    assert after is not None
    assert (after.at, after.job.n_tokens, after.job.resumed) == (6, 7, 1)


def test_the_prompt_is_written_once() -> None:
    book = Book(ROW, tape())
    assert book.tape is not None
    book.tape.job.prompt = [1, 2]
    step = book.step()
    assert step is not None
    assert step.prompt == [1, 2]
    book.written(step, 0.0)
    assert book.step() is None


def test_another_class_is_written() -> None:
    book = Book(ROW, tape())
    assert book.tape is not None
    book.tape.job.request = replace(REQUEST, priority=Priority.NORMAL)
    step = book.step()
    assert step is not None
    assert step.job.priority is Priority.NORMAL


def test_the_first_end_stays() -> None:
    book = Book(ROW)
    book.fail(InferdError(Code.CANCELLED, "first"), 2.0)
    book.fail(InferdError(Code.DEADLINE, "second"), 3.0)
    step = book.step()
    assert step is not None
    assert step.job == change(ROW, state=State.CANCELLED, ended_s=2.0, code="cancelled", error="first")


def test_a_finished_one_is_done() -> None:
    it = tape()
    it.push(Finished(FinishReason.LENGTH, 5, 3, 9, 0, 0, 0, 0, 0, 0, 0))
    it.close()
    assert outcome(it, 2.0) == {
        "state": State.DONE,
        "ended_s": 2.0,
        "finish_reason": FinishReason.LENGTH,
        "prompt_tokens": 5,
        "cached_tokens": 3,
        "completion_tokens": 9,
    }


@pytest.mark.parametrize("code", Code)
def test_a_failure_is_an_end(code: Code) -> None:
    it = tape()
    it.close(InferdError(code, "why"))
    state = State.CANCELLED if code in (Code.CANCELLED, Code.SUPERSEDED) else State.FAILED
    assert outcome(it, 2.0) == {"state": state, "ended_s": 2.0, "code": code.value, "error": "why"}


def test_what_the_node_knew_is_written_after_it_let_go() -> None:
    """The commit that parks it may fail."""
    book = Book(ROW, tape())
    assert book.tape is not None
    book.tape.job.prompt, book.tape.job.request = [1, 2], replace(REQUEST, priority=Priority.NORMAL)
    first = book.step()
    book.tape = None
    assert book.step() == first
    assert first is not None
    assert (first.prompt, first.job.priority) == ([1, 2], Priority.NORMAL)
    book.written(first, 0.0)
    assert book.step() is None


def test_a_deadline_is_what_is_left_of_it() -> None:
    request = as_of_now(REQUEST, change(ROW, deadline_s=time.time() + 100), [1, 2])
    assert request.deadline_ms is not None
    assert 90_000 < request.deadline_ms <= 100_000
    assert (request.tokens, request.prompt) == ([1, 2], None)
    assert as_of_now(REQUEST, ROW, None) is REQUEST
    assert as_of_now(REQUEST, ROW, None, REQUEST.priority) is REQUEST
    assert as_of_now(REQUEST, ROW, None, Priority.INTERACTIVE).priority is Priority.INTERACTIVE
    with pytest.raises(InferdError) as caught:
        as_of_now(REQUEST, change(ROW, deadline_s=time.time() - 1), None)
    assert caught.value.code is Code.DEADLINE
