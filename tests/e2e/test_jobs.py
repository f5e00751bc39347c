"""Durable jobs of a real daemon: killed, ended, full of work, and with a real model."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from inferd import Client, InferdError
from inferd.tests.chaos import jobs as chaos
from inferd.tests.e2e.daemons import environment, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.protos import inferd_pb2 as pb
    from inferd.tests.e2e.daemons import Daemon, Launcher

CONFIG = """
[fake]
enabled = true
tokens_per_s = 200
[models.defaults]
slots = 4
context_tokens = 4096
keep_alive_s = -1
"""
EXACT = """
[models.model.demo]
slots = 2
threads = 1
numerics = "exact"
keep_alive_s = -1
"""


@pytest.fixture(autouse=True)
def ended(launcher: Launcher) -> Iterator[None]:
    """Each test begins and ends without a daemon."""
    yield
    for daemon in launcher.daemons:
        if daemon.process.poll() is None:
            assert daemon.terminate() == 0


def killed(daemon: Daemon) -> None:
    os.kill(daemon.process.pid, signal.SIGKILL)
    daemon.process.wait()


def ended_well(daemon: Daemon) -> None:
    assert daemon.terminate() == 0


def kept(daemon: Daemon, job_id: str, n: int) -> None:
    """Until so many tokens are on the disk."""
    until(lambda: daemon.client.job(job_id).tokens >= n)


@pytest.mark.parametrize("how", [killed, ended_well])
def test_jobs_have_one_result_each_whatever_becomes_of_the_daemon(launcher: Launcher, how: Any) -> None:
    daemon = launcher.start(CONFIG, name="jobs")
    lengths = (5, 150, 300, 450, 600, 20, 20, 20)
    prompts = [f"fake:tokens={n} {how.__name__} {i}" for i, n in enumerate(lengths)]
    jobs = [daemon.client.submit_job("small", text, key=text, raw=True, seed=3) for text in prompts]
    kept(daemon, jobs[1].id, 40)
    how(daemon)
    daemon = launcher.start(CONFIG.replace("200", "0"), name="jobs")
    assert [daemon.client.submit_job("small", text, key=text, raw=True, seed=3).id for text in prompts] == [
        job.id for job in jobs
    ]
    for job, text in zip(jobs, prompts, strict=True):
        answer = daemon.client.stream_job(job.id)
        assert answer.text() == daemon.client.generate("small", text, raw=True, seed=3).text()
        assert answer.job is not None
        assert (answer.job.state, answer.job.finish_reason) == ("done", 1)
    assert daemon.client.job(jobs[1].id).resumed == 1
    assert len(daemon.client.jobs("done")) >= len(jobs)
    assert daemon.client.jobs("queued") == daemon.client.jobs("running") == []


@pytest.mark.parametrize("how", [killed, ended_well])
def test_a_reader_goes_on_over_the_restart(launcher: Launcher, how: Any) -> None:
    daemon = launcher.start(CONFIG, name="jobs")
    job = daemon.client.submit_job("small", "fake:tokens=300 read", raw=True, seed=3)
    with Client(daemon.address) as client:
        answer = client.stream_job(job.id)
        reading = iter(answer)
        tokens = list(next(reading).tokens)
        how(daemon)
        daemon = launcher.start(CONFIG, name="jobs")
        for delta in reading:
            assert delta.index == len(tokens)
            tokens += delta.tokens
    undisturbed = daemon.client.generate("small", "fake:tokens=300 read", raw=True, seed=3)
    assert answer.text_so_far() == undisturbed.text()
    assert len(tokens) == 300


@pytest.mark.llama
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_real_model_goes_on_at_its_saved_token(launcher: Launcher, temperature: float) -> None:
    def ask(daemon: Daemon, model: str = "demo") -> pb.Job:
        prompt = random.Random(5).choices(range(20, 400), k=200)
        job: pb.Job = daemon.client.submit_job(
            model, prompt, max_tokens=700, temperature=temperature, seed=11, ignore_eos=True
        )
        return job

    daemon = launcher.start(EXACT, name="real")
    whole = daemon.client.stream_job(ask(daemon).id)
    tokens = [token for delta in whole for token in delta.tokens]
    job = ask(daemon)
    kept(daemon, job.id, 30)
    killed(daemon)
    daemon = launcher.start(EXACT, name="real")
    before = daemon.client.job(job.id)
    assert not before.HasField("ended_unix_s")
    answer = daemon.client.stream_job(job.id)
    assert [token for delta in answer for token in delta.tokens] == tokens
    assert answer.text_so_far() == whole.text_so_far()
    assert answer.job is not None
    assert (answer.job.state, answer.job.resumed, answer.job.usage.completion_tokens) == ("done", 1, 700)


def test_what_an_ended_daemon_computed_is_not_computed_again(launcher: Launcher) -> None:
    """Its KV is on the disk, too."""
    daemon = launcher.start(EXACT, name="real")
    prompt = random.Random(6).choices(range(20, 400), k=200)
    job = daemon.client.submit_job("demo", prompt, max_tokens=700, temperature=0.0, ignore_eos=True)
    kept(daemon, job.id, 30)
    ended_well(daemon)
    daemon = launcher.start(EXACT, name="real")
    answer = daemon.client.stream_job(job.id)
    answer.text()
    assert answer.job is not None
    assert answer.job.usage.cached_tokens >= 128


def test_the_command_line_submits_waits_and_finds_it_again(launcher: Launcher) -> None:
    daemon = launcher.start(CONFIG, name="jobs")
    variables = {**environment(launcher.folder), "INFERD_ADDRESS": daemon.address}

    def inferd(*args: str) -> str:
        command = [sys.executable, "-m", "inferd.daemon.cli.app", "jobs", *args]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    job_id = inferd("submit", "small", "fake:tokens=40", "--raw", "--key", "cli", "--seed", "1").strip()
    text = inferd("submit", "small", "fake:tokens=40", "--raw", "--key", "cli", "--seed", "1", "--wait")
    assert text.strip() == daemon.client.generate("small", "fake:tokens=40", raw=True, seed=1).text().strip()
    assert inferd("stream", job_id) == text
    assert job_id in inferd("list")
    assert "done" in inferd("show", job_id)


def test_a_disk_that_cannot_be_used_refuses_jobs_and_nothing_else(launcher: Launcher) -> None:
    daemon = launcher.start(f'{CONFIG}[jobs]\nfolder = "/proc/inferd"\n', name="jobs")
    with pytest.raises(InferdError) as caught:
        daemon.client.submit_job("small", "fake:tokens=3", raw=True)
    assert (caught.value.code, "/proc" in caught.value.message) == ("no_disk", False)
    assert daemon.client.generate("small", "fake:tokens=3", raw=True).text()


def test_crashes_lose_nothing_and_repeat_nothing(launcher: Launcher) -> None:
    report = chaos.run(seed=1, n_loops=3, n_jobs=30)
    assert report.sound, report
    assert report.n_crashes == 3
    assert report.n_resumed
