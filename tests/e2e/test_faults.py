"""Clients that vanish or never read, workers and daemons that are killed: one costs nobody else anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from inferd import InferdError
from inferd.protos import inferd_pb2 as pb
from inferd.protos import inferd_pb2_grpc as stubs
from inferd.protos.address import channel_options
from inferd.protos.errors import from_rpc
from inferd.tests.e2e.daemons import alive, ask, best_of, children, dial, environment, until

if TYPE_CHECKING:
    from inferd.tests.e2e.daemons import Daemon, Launcher

WAIT_S = 60.0
SOON_S = 0.2  # the promise for slots and errors
VANISHING = """
import sys
from inferd import Client
for delta in Client(sys.argv[1]).generate("small", "fake:tokens=20000", request_id="vanishes"):
    print(delta.text, flush=True)
"""


class Reader(threading.Thread):
    """Reads one answer to its end in a thread; what came, and the error if one ended it."""

    def __init__(self, daemon: Daemon, request: pb.GenerateRequest) -> None:
        super().__init__(daemon=True)
        self.call = daemon.inference.Generate(request, timeout=WAIT_S)
        self.address = daemon.address
        self.n_tokens = 0
        self.resumed: list[str] = []
        self.finished: pb.Finished | None = None
        self.error: InferdError | None = None
        self.ended_s = 0.0
        self.start()

    def run(self) -> None:
        try:
            for event in self.call:
                self.n_tokens += len(event.delta.tokens)
                kind = event.WhichOneof("event")
                if kind == "finished":
                    self.finished = event.finished
                elif kind == "resumed":
                    self.resumed.append(event.resumed.why)
        except grpc.RpcError as error:
            self.error = from_rpc(error, self.address, heard=True)
        self.ended_s = time.monotonic()

    def streaming(self) -> bool:
        return self.n_tokens > 0

    def end(self) -> None:
        self.join(WAIT_S)
        assert not self.is_alive()


@pytest.fixture(scope="module")
def slow(launcher: Launcher) -> Daemon:
    """One that has little patience with its readers, and answers longer than what a channel takes in."""
    models = "[models.defaults]\nslots = 2\ncontext_tokens = 300_000\n"
    return launcher.start(
        f"[server]\nslow_consumer_s = 0.5\n[fake]\nenabled = true\ntokens_per_s = 4000\n{models}", name="slow"
    )


def test_a_client_that_is_killed_frees_its_slot(daemon: Daemon) -> None:
    def seconds() -> float:
        with subprocess.Popen(
            [sys.executable, "-c", VANISHING, daemon.address],
            stdout=subprocess.PIPE,
            env=environment(daemon.log.parent),
        ) as client:
            assert client.stdout is not None
            assert client.stdout.readline().strip()
            assert "vanishes" in daemon.live()
            client.kill()
            return until(daemon.idle)

    assert best_of(seconds, SOON_S) < SOON_S


def test_a_channel_that_closes_frees_its_slot(daemon: Daemon) -> None:
    def seconds() -> float:
        channel = dial(daemon.address)
        call: Any = stubs.InferenceStub(channel).Generate(ask("fake:tokens=20000", request_id="closes"), timeout=WAIT_S)
        until(lambda: next(call).WhichOneof("event") == "delta")
        assert "closes" in daemon.live()
        channel.close()
        return until(daemon.idle)

    assert best_of(seconds, SOON_S) < SOON_S


def test_a_waiting_client_that_leaves_gives_up_its_place(daemon: Daemon) -> None:
    runs = Reader(daemon, ask("fake:tokens=20000", "single"))
    until(runs.streaming)

    def seconds() -> float:
        waits = daemon.inference.Generate(ask("x", "single", request_id="waits"), timeout=WAIT_S)
        until(lambda: daemon.live().get("waits") == "queued")
        waits.cancel()
        return until(lambda: "waits" not in daemon.live())

    assert best_of(seconds, SOON_S) < SOON_S
    runs.call.cancel()
    runs.end()
    until(daemon.idle)


def test_streams_of_a_killed_worker_go_on_in_the_next_one(daemon: Daemon) -> None:
    spared = Reader(daemon, ask("fake:tokens=1000", "other"))
    until(spared.streaming)
    hit = [Reader(daemon, ask(f"fake:tokens={n}")) for n in (2000, 2001)]
    for reader in hit:
        until(reader.streaming)
    os.kill(daemon.worker_pid("small"), signal.SIGKILL)
    for reader, n_tokens in zip(hit, (2000, 2001), strict=True):
        reader.end()
        assert reader.error is None
        assert reader.n_tokens == n_tokens
        assert reader.resumed == ["worker_crashed"]
    spared.end()
    assert spared.error is None
    assert spared.n_tokens == 1000
    assert spared.resumed == []


def test_requests_behind_a_crash_are_served_by_the_next_worker(daemon: Daemon) -> None:
    hit = Reader(daemon, ask("fake:tokens=500", "single"))
    until(hit.streaming)
    waits = Reader(daemon, ask("fake:tokens=5", "single", request_id="behind"))
    until(lambda: daemon.live().get("behind") == "queued")
    os.kill(daemon.worker_pid("single"), signal.SIGKILL)
    hit.end()
    waits.end()
    assert [(r.error, r.n_tokens, r.resumed) for r in (hit, waits)] == [(None, 500, ["worker_crashed"]), (None, 5, [])]


def test_a_model_that_crashes_with_nothing_done_is_given_a_pause(launcher: Launcher) -> None:
    daemon = launcher.start("[fake]\nenabled = true\n", name="crash")
    with pytest.raises(InferdError) as first:
        daemon.client.generate("small", "fake:crash=0").text()
    assert first.value.code == "worker_crashed"
    until(lambda: (model := daemon.model("small")) is not None and model.state == "failed")
    with pytest.raises(InferdError) as second:
        daemon.client.generate("small", "x").text()
    assert second.value.code == "model_failed"
    assert second.value.retry_after_ms
    assert [warning.code for warning in daemon.snapshot().warnings] == ["model_failed"]
    until(lambda: (model := daemon.model("small")) is not None and model.state == "cold")
    assert len(daemon.client.generate("small", "fake:tokens=2").text().split()) == 2


@pytest.mark.parametrize("reads_later", [True, False])
def test_a_client_that_never_reads_is_cut(slow: Daemon, reads_later: bool) -> None:
    before_bytes = slow.rss_bytes()
    # Little is read ahead on our own channels; a stock one takes in the whole answer.
    channel = grpc.insecure_channel(slow.address, options=channel_options(slow.address, 1.0))
    request = ask("fake:tokens=250000", request_id="slow", sampling=pb.Sampling(logprobs=0))
    call: Any = stubs.InferenceStub(channel).Generate(request, timeout=60)
    until(lambda: next(call).WhichOneof("event") == "delta")
    seconds: list[float] = []

    def cut() -> bool:
        start_s = time.monotonic()
        assert len(slow.client.generate("small", "fake:tokens=20").text().split()) == 20
        seconds.append(time.monotonic() - start_s)
        return "slow" not in slow.live()

    until(cut)
    assert sorted(seconds)[len(seconds) // 2] < 1.0
    until(slow.idle)
    assert slow.rss_bytes() - before_bytes < 32 * 2**20
    if reads_later:
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert from_rpc(caught.value, slow.address).code == "slow_consumer"
    channel.close()


def test_a_killed_daemon_leaves_no_orphan_and_the_path_is_free(launcher: Launcher) -> None:
    daemon = launcher.start("[fake]\nenabled = true\ntokens_per_s = 100\n", name="killed")
    reader = Reader(daemon, ask("fake:tokens=2000"))
    until(reader.streaming)
    below = children(daemon.process.pid)
    assert len(below) >= 2  # a worker and a prompt helper
    daemon.process.kill()
    daemon.process.wait()
    until(lambda: not any(alive(pid) for pid in below), 2.0)
    reader.end()
    assert reader.error is not None
    assert reader.error.code == "unreachable"
    daemon.close()
    again = launcher.start("[fake]\nenabled = true\n", name="killed")
    assert len(again.client.generate("small", "fake:tokens=5").text().split()) == 5


def test_sigterm_lets_running_requests_finish_and_refuses_new_ones(launcher: Launcher) -> None:
    daemon = launcher.start("[fake]\nenabled = true\ntokens_per_s = 100\n", name="drain")
    reader = Reader(daemon, ask("fake:tokens=100"))
    until(reader.streaming)
    below = children(daemon.process.pid)
    daemon.process.send_signal(signal.SIGTERM)

    def refused() -> Any:
        try:
            daemon.client.generate("small", "fake:tokens=1").text()
        except InferdError as error:
            return error
        return None

    until(refused)
    error = refused()
    assert error.code == "shutting_down"
    assert error.retry_after_ms
    reader.end()
    assert reader.error is None
    assert reader.n_tokens == 100
    assert daemon.process.wait(WAIT_S) == 0
    assert not any(alive(pid) for pid in below)
    assert not daemon.socket.exists()


def test_what_outlives_the_drain_is_cut(launcher: Launcher) -> None:
    daemon = launcher.start("[server]\ndrain_s = 0.2\n[fake]\nenabled = true\ntokens_per_s = 100\n", name="short")
    reader = Reader(daemon, ask("fake:tokens=2000"))
    until(reader.streaming)
    with daemon.client.watch(interval_ms=100) as watching:
        assert next(iter(watching)).sequence
        start_s = time.monotonic()
        assert daemon.terminate() == 0
        assert time.monotonic() - start_s < 3.0
    reader.end()
    assert reader.error is not None
    assert reader.error.code == "shutting_down"
