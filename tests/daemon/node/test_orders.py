"""What a worker is told, from what a job is and how far it has come."""

from __future__ import annotations

from typing import Any

import msgspec

from inferd.backends.messages import Embed, SamplingParams, Submit
from inferd.daemon.domain.inputs import Inputs
from inferd.daemon.domain.request import Job, Priority, Request
from inferd.daemon.node.orders import order


def job(priority: Priority = Priority.NORMAL, **fields: Any) -> Job:
    params = SamplingParams(max_tokens=0, seed=3)
    made = Job(Request("r", "m", params, priority, "t", **fields), 0.0, 0)
    made.attempt, made.cache_salt = 2, "salt"
    return made


def test_a_text_goes_on_where_it_was() -> None:
    one = job(Priority.INTERACTIVE, tokens=[1, 2])
    one.prompt, one.generated, one.sent_bytes, one.max_tokens, one.grammar = [1, 2], [7], 4, 9, "g"
    params = msgspec.structs.replace(one.request.params, max_tokens=9, grammar="g")
    assert order(one, 50.0, 600.0) == Submit("r", 2, [1, 2, 7], 2, params, 2, 4, 50.0, "salt")
    assert order(one, None, 600.0) == Submit("r", 2, [1, 2, 7], 2, params, 2, 4, 0.0, "salt")


def test_what_a_session_has_computed_stays_warm() -> None:
    for session, keep_s in (("", 0.0), ("s", 600.0)):
        one = job(tokens=[1], session_id=session)
        one.prompt = [1]
        told = order(one, None, 600.0)
        assert isinstance(told, Submit)
        assert told.keep_s == keep_s


def test_a_text_is_written_with_its_adapter() -> None:
    one = job(tokens=[1], lora="a")
    one.prompt = [1]
    told = order(one, None, 600.0)
    assert isinstance(told, Submit)
    assert told.lora == "a"


def test_of_inputs_only_those_are_left_whose_vectors_have_not_come() -> None:
    one = job(Priority.BATCH, inputs=Inputs(["a", "b", "c"], dimensions=4))
    one.prompt, one.lengths = [1, 2, 3, 4, 5, 6], [2, 1, 3]
    assert order(one, None, 600.0) == Embed("r", 2, [[1, 2], [3], [4, 5, 6]], True, 4, 0, 0)
    one.n_embedded = 2
    assert order(one, None, 600.0) == Embed("r", 2, [[4, 5, 6]], True, 4, 0, 3)


def test_vectors_are_as_they_were_asked_for() -> None:
    one = job(inputs=Inputs([[1]], normalize=False))
    one.prompt, one.lengths = [1], [1]
    assert order(one, None, 600.0) == Embed("r", 2, [[1]], False, 0, 1, 0)
