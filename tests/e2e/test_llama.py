"""The real engine behind the real daemon, and what damaged model files do to them."""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from inferd import Client, InferdError
from inferd.tests.e2e.daemons import until
from inferd.tests.models.random_gguf import SHAPES, write_random_gguf
from inferd.tests.models.random_lora import write_random_lora

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inferd.tests.e2e.daemons import Daemon, Launcher

pytestmark = pytest.mark.llama

# One thread: llama.cpp's own wait for each other in a spin, which a busy machine makes very slow.
CONFIG = "[models.defaults]\nslots = 2\nthreads = 1\ncontext_tokens = 512\nkeep_alive_s = 2\n"
N_MUTANTS = 60
LIMIT_S = 5.0  # for one answer or refusal, spawning its processes included


@pytest.fixture(scope="module")
def real(launcher: Launcher) -> Daemon:
    write_random_gguf(launcher.models / "tiny.gguf", SHAPES["tiny"])
    write_mutants(launcher.models / "tiny.gguf")
    return launcher.start(CONFIG, name="real")


def test_tokens_stream_from_the_real_engine(real: Daemon) -> None:
    answer = real.client.generate("tiny", "hello", max_tokens=24, temperature=0, ignore_eos=True)
    deltas = list(answer)
    assert sum(len(delta.tokens) for delta in deltas) == 24
    assert answer.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 5  # the template's own words count
    assert answer.usage.completion_tokens == 24


def test_each_adapter_has_its_own_answers(launcher: Launcher) -> None:
    write_random_gguf(launcher.models / "base.gguf", SHAPES["tiny"])
    (launcher.models / "lora").mkdir()
    write_random_lora(launcher.models / "lora" / "one.gguf", SHAPES["tiny"])
    adapters = '[models.model.base]\nnumerics = "exact"\nadapters = { one = "lora/one.gguf" }\n'
    daemon = launcher.start(CONFIG + adapters, name="lora")

    def ask(lora: str) -> str:
        return Client(daemon.address).generate("base", "hello", max_tokens=24, temperature=0, lora=lora).text()

    plain, one = ask(""), ask("one")
    assert plain != one
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, ["", "one"] * 4)) == [plain, one] * 4
    (info,) = (model for model in daemon.client.models() if model.name == "base")
    assert list(info.adapters) == ["one"]
    with pytest.raises(InferdError, match="its adapters are one") as error:
        ask("two")
    assert (error.value.code, error.value.details["field"]) == ("not_found", "lora")
    assert daemon.terminate() == 0


def test_the_same_request_gets_the_same_answer(real: Daemon) -> None:
    def tokens(seed: int, temperature: float) -> list[int]:
        answer = real.client.generate(
            "tiny", "again", max_tokens=16, temperature=temperature, seed=seed, ignore_eos=True
        )
        return [token for delta in answer for token in delta.tokens]

    assert tokens(1, 0) == tokens(2, 0)
    assert tokens(7, 1.5) == tokens(7, 1.5) != tokens(8, 1.5)


def test_more_requests_than_slots_are_all_served(real: Daemon) -> None:
    def ask(seed: int) -> int:
        answer = real.client.generate("tiny", "many", max_tokens=20, seed=seed, ignore_eos=True)
        return sum(len(delta.tokens) for delta in answer)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, range(6))) == [20] * 6
    until(real.idle)


def test_what_was_asked_before_is_not_computed_again(real: Daemon) -> None:
    prompt = [random.Random(1).randrange(500) for _ in range(300)]
    for salt, cached in (("one", 0), ("one", 256), ("two", 0)):
        with Client(real.address, tenant=salt) as client:
            answer = client.generate("tiny", prompt, max_tokens=2, ignore_eos=True)
            answer.text()
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.cached_tokens) == (300, cached)
    until(lambda: real.snapshot().rates.prompt_tokens_cached_total >= 256)


def test_an_answer_has_the_form_that_it_was_asked_to_have(real: Daemon) -> None:
    properties = {"ok": {"type": "boolean"}}
    schema = {"type": "object", "properties": properties, "required": ["ok"], "additionalProperties": False}
    answer = real.client.generate("tiny", "is it?", response_format={"json_schema": schema}, max_tokens=100)
    assert set(json.loads(answer.text())) == {"ok"}
    assert answer.finish_reason == "stop"
    chosen = real.client.generate("tiny", "which?", response_format={"grammar": 'root ::= "a" | "b"'})
    assert chosen.text() in ("a", "b")
    with pytest.raises(InferdError) as caught:
        real.client.generate("tiny", "x", response_format={"grammar": "root ::= missing"}).text()
    assert (caught.value.code, caught.value.field) == ("invalid", "response_format")


def test_text_never_splits_a_character(real: Daemon) -> None:
    answer = real.client.generate(
        "tiny", "caf\u00e9 \U0001f600", max_tokens=100, temperature=2, seed=3, ignore_eos=True
    )
    for delta in answer:
        assert delta.text.encode("utf-8").decode("utf-8") == delta.text
    assert answer.finish_reason == "length"


def test_a_prompt_longer_than_the_context_is_refused(real: Daemon) -> None:
    with pytest.raises(InferdError) as caught:
        real.client.generate("tiny", [5] * 600).text()
    assert caught.value.code == "prompt_too_long"
    assert (caught.value.details["prompt_tokens"], caught.value.details["context_tokens"]) == ("600", "512")


@pytest.mark.parametrize("half", [0, 1])
def test_a_damaged_file_is_answered_or_refused_and_the_daemon_lives(real: Daemon, half: int) -> None:
    def ask(number: int) -> tuple[str, float]:
        name = f"mutant-{number}"
        start_s = time.monotonic()
        try:
            # Every other one through the prompt helper, which opens the file as well.
            prompt = [1, 2, 3] if number % 2 else "hi"
            real.client.generate(name, prompt, max_tokens=4, raw=isinstance(prompt, str)).text()
            outcome, message = "answered", "-"
        except InferdError as error:
            outcome, message = error.code, error.message
        took_s = time.monotonic() - start_s
        assert message
        assert str(real.log.parent) not in message
        if outcome == "answered":
            real.client.unload(name, force=True)
        return outcome, took_s

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(ask, range(half, N_MUTANTS, 2)))
    outcomes = {outcome for outcome, _ in results}
    assert outcomes <= {"answered", "model_corrupt", "model_failed", "worker_crashed", "unsupported", "template_failed"}
    assert {"answered", "model_corrupt"} <= outcomes
    assert max(took_s for _, took_s in results) < LIMIT_S
    assert real.process.poll() is None
    assert real.client.generate("tiny", "still there?", max_tokens=2, ignore_eos=True).text() is not None
    until(real.idle)


def write_mutants(sound: Path) -> None:
    """Files that differ from a sound one by one wound each; the same ones each time."""
    raw = sound.read_bytes()
    header_bytes = raw.index(b"token_embd.weight")
    wounds: list[Callable[[random.Random, bytearray], bytearray]] = [
        lambda rng, data: flip(rng, data, 0, header_bytes),
        lambda rng, data: flip(rng, data, header_bytes, header_bytes + 1500),
        lambda rng, data: flip(rng, data, header_bytes, len(data)),
        lambda rng, data: data[: rng.randrange(len(data))],
        lambda rng, data: blank(rng, data, header_bytes),
        lambda rng, data: data + rng.randbytes(rng.randrange(1, 4096)),
    ]
    for number in range(N_MUTANTS):
        rng = random.Random(number)
        mutant = wounds[number // 2 % len(wounds)](rng, bytearray(raw))
        sound.with_name(f"mutant-{number}.gguf").write_bytes(mutant)


def flip(rng: random.Random, data: bytearray, start: int, end: int) -> bytearray:
    for _ in range(rng.choice((1, 1, 4))):
        data[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
    return data


def blank(rng: random.Random, data: bytearray, header_bytes: int) -> bytearray:
    start, length = rng.randrange(header_bytes), rng.randrange(1, 64)
    data[start : start + length] = rng.choice((bytes(length), b"\xff" * length))
    return data
