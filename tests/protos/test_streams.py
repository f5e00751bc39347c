"""Answers, snapshots and leases as they come, against a scripted daemon."""

from __future__ import annotations

import gc
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from inferd import Client, InferdError, Unreachable
from inferd.protos import inferd_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_an_answer_is_read_delta_by_delta(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.queued(3), steps.started(), steps.delta("a"), steps.delta("b", 1), steps.finished()]
    with Client(daemon.address) as client:
        generation = client.generate("demo", "hi")
        deltas = [(d.text, d.tokens, d.index, d.choice) for d in generation]
    assert deltas == [("a", [10], 0, 0), ("b", [11], 1, 0)]
    assert (generation.finish_reason, generation.request_id, generation.model) == ("stop", "r1", "demo")
    assert (generation.device, generation.seed, generation.queued) == ("cpu", 7, None)
    assert generation.usage is not None
    assert generation.usage.cached_tokens == 2
    assert generation.timings is not None
    assert (generation.timings.ttft_ms, generation.timings.e2e_ms) == (20, 30)


def test_text_after_a_part_was_read_is_the_whole_text(daemon: Any) -> None:
    with Client(daemon.address) as client:
        generation = client.generate("demo", "hi")
        assert generation.text() == generation.text() == "hello world"


def test_queue_position_is_seen_while_it_waits(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.queued(3, "load"), steps.queued(1), *steps.HELLO]
    with Client(daemon.address) as client:
        generation = client.generate("demo", "hi")
        seen = [(generation.queued, generation.waits_for) for _ in generation.events()]
    assert seen[:3] == [(3, "load"), (1, "slot"), (None, None)]


def test_resumed_is_counted_and_costs_no_text(daemon: Any, steps: Any) -> None:
    resumed = pb.GenerateResponse(resumed=pb.Resumed(why="preempted"))
    daemon.script = [steps.started(), steps.delta("a"), resumed, steps.delta("b", 1), resumed, steps.finished()]
    with Client(daemon.address) as client:
        generation = client.generate("demo", "hi")
        assert (generation.text(), generation.resumed) == ("ab", 2)


def test_several_choices_are_kept_apart(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started()]
    daemon.script += [steps.delta("a"), steps.delta("x", 0, 1), steps.delta("b", 1), steps.delta("y", 1, 1)]
    daemon.script += [steps.finished(2, pb.LENGTH, 1), steps.finished(3)]
    with Client(daemon.address) as client:
        generation = client.generate("demo", "hi", n=2)
        assert (generation.text(), generation.text(1)) == ("ab", "xy")
    assert generation.finish_reason == "stop"
    assert generation.endings[1].finish_reason == "length"
    assert generation.usage is not None
    assert generation.usage.completion_tokens == 5


def test_leaving_the_loop_early_cancels(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), steps.delta("a"), daemon.forever]
    with Client(daemon.address) as client:
        generation = client.generate("demo", "hi")
        for _ in generation:
            break
        assert daemon.ended.wait(5)
        assert (generation.finish_reason, generation.text()) == ("cancelled", "a")


def test_leaving_the_with_block_cancels(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), daemon.forever]
    with Client(daemon.address) as client:
        with client.generate("demo", "hi"):
            assert daemon.arrived.wait(5)
        assert daemon.ended.wait(5)


def test_a_dropped_generation_cancels(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), daemon.forever]
    with Client(daemon.address) as client:
        generation = client.generate("demo", "hi")
        assert daemon.arrived.wait(5)
        del generation
        gc.collect()
        assert daemon.ended.wait(5)


def test_another_thread_can_cancel(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), steps.delta("a"), daemon.forever]
    with Client(daemon.address) as client:
        generation = client.generate("demo", "hi")
        for _ in generation:
            threading.Thread(target=generation.cancel).start()
        assert generation.finish_reason == "cancelled"


def test_the_daemon_may_cancel(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), steps.delta("a"), steps.finished(1, pb.CANCELLED)]
    with Client(daemon.address) as client:
        generation = client.generate("demo", "hi")
        assert (generation.text(), generation.finish_reason) == ("a", "cancelled")


def test_a_failure_is_raised_again_and_keeps_the_text(daemon: Any, steps: Any) -> None:
    crash = steps.fail(grpc.StatusCode.INTERNAL, "worker_crashed", "the worker died")
    daemon.script = [steps.started(), steps.delta("a"), crash]
    with Client(daemon.address) as client:
        generation = client.generate("demo", "hi")
        for _ in range(2):
            with pytest.raises(InferdError, match="the worker died"):
                generation.text()
        assert generation.text_so_far() == "a"
        assert generation.finish_reason is None


def test_a_stream_without_an_end_is_a_failure(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), steps.delta("a")]
    with Client(daemon.address) as client, pytest.raises(InferdError, match="without saying why"):
        client.generate("demo", "hi").text()


def test_a_daemon_that_goes_away_in_mid_answer_is_not_asked_again(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), steps.delta("a"), daemon.forever]
    with Client(daemon.address) as client:
        deltas = iter(client.generate("demo", "hi"))
        assert next(deltas).text == "a"
        daemon.stop()
        with pytest.raises(Unreachable, match="went away"):
            next(deltas)
    assert len(daemon.requests) == 1


def test_watch_ends_with_the_loop(daemon: Any) -> None:
    with Client(daemon.address) as client:
        for snapshot in client.watch(interval_ms=250):
            assert snapshot.sequence == 1
            break
        assert daemon.ended.wait(5)
    assert daemon.asked[0].interval_ms == 250


def test_wait_gives_the_last_message(daemon: Any) -> None:
    with Client(daemon.address) as client:
        last = client.load("demo").wait()
    assert last is not None
    assert last.load_ms == 120


def test_a_slow_reader_is_not_read_ahead_of(daemon: Any, steps: Any) -> None:
    sent = 0

    def flood() -> Iterator[pb.GenerateResponse]:
        nonlocal sent
        yield steps.started()
        for i in range(50_000):
            sent = i
            yield steps.delta("hello", i)

    daemon.script = flood()
    with Client(daemon.address) as client:
        generation = client.generate("demo", "hi")
        events = generation.events()
        next(events)
        before = -1
        while sent != before:
            before = sent
            time.sleep(0.2)  # no event says that a sender is blocked
        events.close()
    assert 0 < sent < 5_000


def test_a_lease_is_held_in_its_block_and_given_back_after_it(daemon: Any) -> None:
    with Client(daemon.address) as client:
        with client.lease("demo"):
            assert daemon.asked[0].model == "demo"
            assert not daemon.ended.is_set()
        assert daemon.ended.wait(5)
