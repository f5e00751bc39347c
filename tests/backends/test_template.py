"""Chat templates: what model authors rely on, and what a hostile one must not achieve."""

from __future__ import annotations

import json

import pytest

from inferd.backends import template
from inferd.backends.messages import ChatMessage, Tool, ToolCall
from inferd.backends.template import ChatTemplate, TemplateError

HELLO = [ChatMessage("system", "Be brief."), ChatMessage("user", "Hello")]
CHATML = """{%- for message in messages %}
    {%- if loop.first and message.role != 'system' %}
        {{- '<|im_start|>system\n<|im_end|>\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}"""


def render(source: str, messages: list[ChatMessage] = HELLO) -> str:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>").render(messages)


def failure(source: str) -> TemplateError:
    with pytest.raises(TemplateError) as error:
        render(source)
    return error.value


def test_a_usual_template_renders_up_to_the_answer() -> None:
    assert render(CHATML) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_it_renders_again_and_again() -> None:
    chat = ChatTemplate(CHATML)
    assert chat.render(HELLO) == chat.render(HELLO)
    assert "Bye" in chat.render([ChatMessage("user", "Bye")])


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ eos_token }}", "<s></s>"),
        ("{% for m in messages %}\n  {% if true %}\n{{ m.role }}\n  {% endif %}\n{% endfor %}", "system\nuser\n"),
        ("{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m['role'] }}{% endfor %}", "system"),
        ("{{ {'a': '<é>'} | tojson }}", '{"a": "<é>"}'),
        ("{% if tools is none and not documents %}none{% endif %}", "none"),
        ("{% generation %}{{ messages[0].role }}{% endgeneration %}", "system"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
        ("{{ messages[1].content.split('l')[0] | upper }}", "HE"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{{ '-' * 3 }}{{ 2 ** 10 }}", "---1024"),
    ],
)
def test_what_templates_use(source: str, text: str) -> None:
    assert render(source) == text


def test_a_template_may_refuse() -> None:
    error = failure("{{ raise_exception('roles must alternate') }}")
    assert (error.code, str(error)) == ("template", "the chat template failed: roles must alternate")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__.sys }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% include 'other' %}",
        "{{ messages[9].content }}",
        "{{ nothing.at.all }}",
        "{% for %}",
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
    ],
)
def test_ways_out_and_mistakes_are_template_errors(source: str) -> None:
    assert failure(source).code == "template"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 1000000000 }}",
        "{{ 1000000000 * ['x'] }}",
        "{{ 10 ** 10 ** 8 }}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% for i in range(90000) %}{{ 'x' * 100 }}{% endfor %}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{{ 'x' * 5000000 }}",
        "{% set ns = namespace(n=9) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    ],
)
def test_bombs_are_limited(source: str) -> None:
    assert failure(source).code == "limit"


def test_endless_work_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "LIMIT_S", 0.05)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    error = failure(loop)
    assert (error.code, str(error)) == ("limit", "the chat template took longer than 0.05 s")


def test_messages_say_nothing_about_this_machine() -> None:
    assert "/" not in str(failure("{% include '../../secret' %}{{ x.y }}")).replace("../../secret", "")


ADD = Tool("add", "Adds.", '{"type": "object"}')
CALLED = [*HELLO, ChatMessage("assistant", "", (ToolCall("c", "add", '{"a": 1}'),)), ChatMessage("tool", "2")]


def test_a_template_that_knows_tools_gets_them_and_the_arguments_as_a_mapping() -> None:
    source = (
        "{% for t in tools %}{{ t | tojson }}{% endfor %}"
        "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.arguments.a + 1 }}{% endfor %}{% endfor %}"
    )
    made = ChatTemplate(source).render(CALLED, [ADD])
    tool = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}
    assert made == json.dumps(tool) + "2"


def test_a_template_that_wants_arguments_as_text_gets_text() -> None:
    source = (
        "{{ tools | length }}{% for m in messages %}{% for c in m.tool_calls %}"
        "{{ '>' + c.function.arguments }}{% endfor %}{% endfor %}"
    )
    assert ChatTemplate(source).render(CALLED, [ADD]) == '1>{"a": 1}'


def test_a_template_that_fails_either_way_says_so() -> None:
    with pytest.raises(TemplateError, match="single"):
        ChatTemplate("{{ tools }}{{ raise_exception('only single calls') }}").render(CALLED)


def test_a_template_that_knows_no_tools_gets_messages_that_explain_them() -> None:
    chat = ChatTemplate(CHATML)
    made = chat.render(CALLED, [ADD])
    assert '"description": "Adds."' in made
    assert "<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>" in made
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>' in chat.render(CALLED)
    assert "<|im_start|>tool\n2" in chat.render([*HELLO, ChatMessage("tool", "2")])  # as ever
