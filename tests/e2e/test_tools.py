"""Tools from the client's dicts to typed calls: on the fake engine, on real ones, and through a crash."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from inferd import AsyncClient, InferdError
from inferd.tests.e2e.daemons import until
from inferd.tests.models.random_gguf import SHAPES, write_random_gguf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.protos.streams import Generation
    from inferd.tests.e2e.daemons import Daemon, Launcher

DAY = {"type": "integer", "minimum": 1, "maximum": 9}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 12},
                "unit": {"enum": ["C", "F"]},
                "days": {"type": "array", "items": DAY, "minItems": 4, "maxItems": 9},
            },
            "required": ["city", "unit", "days"],
        },
    },
}  # fmt: skip
STOP = {"name": "stop", "description": "Ends it."}
OSLO = '{"city": "Oslo", "unit": "C", "days": [1, 2, 3, 4]}'
CALL = f'<tool_call>\n{{"name": "get_weather", "arguments": {OSLO}}}\n</tool_call>'


def say(text: str) -> str:
    """An order to the fake engine."""
    return f"fake:say={text.encode().hex()}"


@pytest.fixture(scope="module")
def fake(launcher: Launcher) -> Daemon:
    return launcher.start("[models.defaults]\ncontext_tokens = 20480\n", "--fake", name="fake-tools")


def test_a_round_trip(fake: Daemon) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": say(f"I will look.\n{CALL}")}]
    answer = fake.client.generate("small", messages, tools=[WEATHER, STOP])
    deltas = list(answer)
    pieces = [piece for delta in deltas for piece in delta.tool_calls]
    assert "".join(delta.text for delta in deltas) == answer.text_so_far() == "I will look."
    assert (pieces[0].index, pieces[0].name, len(pieces[0].id)) == (0, "get_weather", 9)
    (call,) = answer.tool_calls
    assert (call.id, call.name) == (pieces[0].id, "get_weather")
    assert call.arguments == OSLO
    assert answer.finish_reason == "tool_calls"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == sum(len(delta.tokens) for delta in deltas) == len(f"I will look.\n{CALL}")

    messages += [answer.message(), {"role": "tool", "tool_call_id": call.id, "content": say("It rains.")}]
    last = fake.client.generate("small", messages, tools=[WEATHER, STOP])
    assert (last.text(), last.tool_calls, last.finish_reason) == ("It rains.", [], "stop")


def test_what_must_be_called(fake: Daemon) -> None:
    def calls(**options: Any) -> list[tuple[str, str]]:
        answer = fake.client.generate("small", "x", tools=[WEATHER, STOP], **options)
        answer.text()
        assert answer.finish_reason == "tool_calls"
        return [(call.name, call.arguments) for call in answer.tool_calls]

    assert calls(tool_choice="required") == [("get_weather", "{}")]
    assert calls(tool_choice={"type": "function", "function": {"name": "stop"}}) == [("stop", "{}")]
    assert calls(tool_choice={"function": "stop"}) == [("stop", "{}")]


def test_without_tools_a_call_is_text(fake: Daemon) -> None:
    for options in ({}, {"tools": [WEATHER], "tool_choice": "none"}):
        answer = fake.client.generate("small", say(CALL), **options)  # type: ignore[arg-type]
        assert (answer.text(), answer.tool_calls, answer.finish_reason) == (CALL, [], "stop")


def test_an_answer_that_ends_inside_a_call(fake: Daemon) -> None:
    answer = fake.client.generate("small", say(CALL), tools=[WEATHER], max_tokens=70)
    assert (answer.text(), answer.finish_reason) == ("", "length")
    (call,) = answer.tool_calls
    assert OSLO.startswith(call.arguments)
    assert 0 < len(call.arguments) < len(OSLO)


def test_each_of_several_answers_has_its_own_calls(fake: Daemon) -> None:
    answer = fake.client.generate("small", say(CALL), tools=[WEATHER], n=3)
    answer.text()
    calls = [answer.tool_calls_so_far(choice) for choice in range(3)]
    assert [[call.name for call in of_one] for of_one in calls] == [["get_weather"]] * 3
    assert len({of_one[0].id for of_one in calls}) == 3


async def test_the_asyncio_twin(fake: Daemon) -> None:
    async with AsyncClient(fake.address) as client:
        answer = client.generate("small", say(CALL), tools=[WEATHER])
        pieces = [piece async for delta in answer for piece in delta.tool_calls]
    assert "".join(piece.arguments for piece in pieces) == answer.tool_calls[0].arguments
    assert answer.finish_reason == "tool_calls"


# A fake worker that crashes in the middle of a call goes on with it.


@pytest.mark.parametrize("crash_at", [3, 14, 40, 70, 110])
def test_a_crash_inside_a_call_is_not_seen(fake: Daemon, crash_at: int) -> None:
    answer = fake.client.generate("small", f"{say('So: ' + CALL)} fake:crash={crash_at}", tools=[WEATHER])
    assert answer.text() == "So:"
    assert (answer.resumed, answer.finish_reason) == (1, "tool_calls")
    assert json.loads(answer.tool_calls[0].arguments)["city"] == "Oslo"


# Real engines


TEMPLATES = {
    "qwen": (
        "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}Write <tool_call>"
        "</tool_call><|im_end|>\n{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% for c in m.tool_calls %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n"
        "{% endfor %}<|im_start|>assistant\n"
    ),
    "mistral": (
        "{% for m in messages %}{% if m.role == 'user' %}{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}{% endif %}"
        "[INST]{{ m.content }}[/INST]{% elif m.tool_calls %}{% for c in m.tool_calls %}{% if c.id | length != 9 %}"
        "{{ raise_exception('nine!') }}{% endif %}[TOOL_CALLS][{{ c.function | tojson }}]{% endfor %}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    ),
    "llama3": (
        "{% for m in messages %}<|start_header_id|>{{ 'ipython' if m.role == 'tool' else m.role }}<|end_header_id|>"
        "{% if loop.first and tools %}{{ tools | tojson(indent=4) }}{% endif %}{% if 'tool_calls' in m %}"
        "{% set f = m.tool_calls[0].function %}"
        '{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}'
        "{% else %}{{ m.content | trim }}{% endif %}{% endfor %}<|start_header_id|>assistant<|end_header_id|>"
        "{# <|start_header_id|>ipython #}"
    ),
    "unknown": "{% for m in messages %}{{ m.content }}{% endfor %}{% for t in tools %}{{ t }}{% endfor %}",
}
CONTROL = ("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>")
CONFIG = """
[models.defaults]
slots = 2
threads = 1
context_tokens = 4096
keep_alive_s = 60
numerics = "exact"
"""


@pytest.fixture(scope="module")
def real(launcher: Launcher) -> Daemon:
    for name, template in TEMPLATES.items():
        path = launcher.models / f"{name}.gguf"
        write_random_gguf(path, SHAPES["tiny"], chat_template=template, control=CONTROL)
    return launcher.start(CONFIG, name="real-tools")


@pytest.fixture(autouse=True)
def idle(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in ("fake", "real"):
        if name in request.fixturenames:
            until(request.getfixturevalue(name).idle)


def check(call: Any) -> None:
    assert call.name == "get_weather"
    arguments = json.loads(call.arguments)
    assert set(arguments) == {"city", "unit", "days"}
    assert len(arguments["city"]) <= 12
    assert arguments["unit"] in ("C", "F")
    assert 4 <= len(arguments["days"]) <= 9
    assert all(1 <= day <= 9 for day in arguments["days"])


@pytest.mark.llama
@pytest.mark.parametrize("model", ["qwen", "mistral", "llama3", "demo"])
def test_a_call_that_must_come_fits_its_schema(real: Daemon, model: str) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "How is the weather?"}]
    options: Any = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 400}
    answer = real.client.generate(model, messages, seed=4, **options)
    assert answer.text() == ""
    (call,) = answer.tool_calls
    check(call)
    assert answer.finish_reason == "tool_calls"
    messages += [answer.message(), {"role": "tool", "tool_call_id": call.id, "content": "Rain."}]
    again = real.client.generate(model, messages, tools=[WEATHER], tool_choice="none", max_tokens=10)
    again.text()
    assert again.tool_calls == []
    assert again.prompt_tokens is not None
    assert answer.prompt_tokens is not None
    assert again.prompt_tokens > answer.prompt_tokens


@pytest.mark.llama
def test_a_model_that_calls_in_another_way_is_refused(real: Daemon) -> None:
    with pytest.raises(InferdError) as caught:
        real.client.generate("unknown", "x", tools=[WEATHER]).text()
    assert (caught.value.code, caught.value.field) == ("unsupported", "tools")


@pytest.mark.llama
def test_a_schema_that_nothing_can_be_made_of_is_refused_by_its_place(real: Daemon) -> None:
    bad = {"name": "bad", "parameters": {"type": "object", "properties": {"a": {"type": "nonsense"}}}}
    with pytest.raises(InferdError) as caught:
        real.client.generate("qwen", "x", tools=[STOP, bad]).text()
    assert (caught.value.code, caught.value.field) == ("invalid", "tools[1].parameters")


def ask(real: Daemon, seed: int, model: str = "qwen") -> Generation:
    """Free text until the model happens to begin a call, which it likes to; then another one."""
    begin = real.client.tokenize(model, "<tool_call>")
    assert len(begin) == 1
    return real.client.generate(
        model, "Weather?", tools=[WEATHER], logit_bias={begin[0]: 4.0}, temperature=1.0, seed=seed, max_tokens=1200,
        ignore_eos=True,
    )  # fmt: skip


@pytest.mark.llama
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_worker_that_is_killed_inside_a_call_is_not_missed(real: Daemon, seed: int) -> None:
    """The pieces joined are those of the same request left in peace."""
    peace = ask(real, seed)
    text = peace.text()
    calls = [(call.name, call.arguments) for call in peace.tool_calls]
    assert calls
    for call in peace.tool_calls[:-1]:
        check(call)

    disturbed = ask(real, seed)
    killed = False
    for delta in disturbed:
        if delta.tool_calls and not killed:  # arguments have begun, and do not end before the worker does
            os.kill(real.worker_pid("qwen"), signal.SIGKILL)
            killed = True
    assert disturbed.resumed >= 1
    assert disturbed.text_so_far() == text
    assert [(call.name, call.arguments) for call in disturbed.tool_calls] == calls
    assert disturbed.finish_reason == peace.finish_reason
