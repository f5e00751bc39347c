"""Arrivals sent to a daemon at their times."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

from inferd.daemon.domain.request import Priority
from inferd.daemon.replay.arrivals import Arrival
from inferd.daemon.replay.live import play, prompt
from inferd.daemon.replay.report import DONE, report
from inferd.protos import inferd_pb2 as pb
from inferd.protos.errors import InferdError

BATCH = Arrival(0.0, 7, 3, "ada", Priority.BATCH, deadline_ms=9000)


def test_prompts_are_ordinary_tokens_the_same_each_time_and_unlike_each_other() -> None:
    assert prompt(5, 100) == prompt(5, 100)
    assert prompt(5, 8) != prompt(6, 8)
    assert all(16 <= token < 256 for token in prompt(1, 5000))


async def test_a_request_asks_for_what_was_recorded(daemon: Any) -> None:
    result = await play(daemon.address, "demo", [BATCH, Arrival(0.0, 4, 2)])
    asked = {len(request.tokens.ids): request for request in daemon.requests}
    assert asked[7].tokens.ids == prompt(0, 7)
    assert (asked[7].model, asked[7].max_tokens, asked[7].deadline_ms, asked[7].priority) == ("demo", 3, 9000, pb.BATCH)
    assert (asked[7].sampling.ignore_eos, asked[7].sampling.temperature) == (True, 0.0)
    assert not asked[4].HasField("deadline_ms")
    assert {meta["inferd-tenant"] for meta in daemon.metadata} == {"ada", "default"}
    assert [(o.ended, o.output_tokens, o.parks) for o in result.outcomes] == [(DONE, 2, 0)] * 2
    first = result.outcomes[0]
    assert first.queue_ms is not None
    assert first.ttft_ms is not None
    assert first.end_ms is not None
    assert 0 < first.queue_ms <= first.ttft_ms <= first.end_ms
    assert result.book.served == {("batch", "ada"): 7 + 2 * 2, ("interactive", "default"): 4 + 2 * 2}


async def test_requests_are_sent_at_their_times(daemon: Any) -> None:
    start_s = time.monotonic()
    result = await play(daemon.address, "demo", [Arrival(0.0, 1, 1), Arrival(0.3, 1, 1)])
    assert time.monotonic() - start_s >= 0.3
    assert report(result).total.done == 2


async def test_a_refusal_keeps_its_reason_and_when_to_come_back(daemon: Any, steps: Any) -> None:
    refusal = steps.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded", "busy", 1500, reason="wait")
    daemon.script = [steps.queued(3), refusal]
    (outcome,) = (await play(daemon.address, "demo", [BATCH])).outcomes
    assert (outcome.ended, outcome.reason, outcome.retry_after_ms) == ("overloaded", "wait", 1500)
    assert outcome.refused
    assert outcome.queue_ms is None


async def test_an_eta_counts_from_the_arrival_and_the_first_one_is_kept(daemon: Any, steps: Any) -> None:
    etas = [pb.Queued(position=1, eta_low_ms=low, eta_high_ms=high) for low, high in ((100, 200), (5, 6))]
    daemon.script = [steps.queued(2), *(pb.GenerateResponse(queued=eta) for eta in etas), *steps.HELLO]
    (outcome,) = (await play(daemon.address, "demo", [BATCH])).outcomes
    assert outcome.eta_ms is not None
    low_ms, high_ms = outcome.eta_ms
    assert high_ms - low_ms == pytest.approx(100.0)
    assert outcome.end_ms is not None
    assert 100.0 < low_ms <= 100.0 + outcome.end_ms


@pytest.mark.parametrize("told", [True, False])
async def test_who_loses_its_slot_waits_again(daemon: Any, steps: Any, told: bool) -> None:
    resumed = pb.GenerateResponse(resumed=pb.Resumed(why="preempted"))
    waiting = [steps.queued(0)] if told else []
    daemon.script = [steps.started(), steps.delta("a"), *waiting, resumed, steps.delta("b", 1), steps.finished()]
    result = await play(daemon.address, "demo", [BATCH])
    assert (result.outcomes[0].ended, result.outcomes[0].parks) == (DONE, 1)
    assert result.book.served == {("batch", "ada"): 7 + 2 * 2}  # its prompt once
    assert result.book.most_running == 7 + 2


async def test_a_model_that_cannot_be_loaded_is_an_error(daemon: Any, steps: Any) -> None:
    daemon.refusal = steps.fail(grpc.StatusCode.NOT_FOUND, "not_found", "there is no model")
    with pytest.raises(InferdError, match="there is no model"):
        await play(daemon.address, "demo", [BATCH])
