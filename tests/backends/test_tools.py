"""Tools in prompts: which way a template calls them, what it is given, and what stands in where it knows none."""

from __future__ import annotations

import json

import pytest

from inferd.backends.messages import ChatMessage, Tool, ToolCall
from inferd.backends.tools import (
    FAMILIES,
    HERMES,
    call_text,
    knows_tools,
    message_dicts,
    spelled_out,
    syntax_of,
    tool_dicts,
)

ADD = Tool("add", "Adds.", '{"type": "object", "properties": {"a": {"type": "integer"}}}')
STOP = Tool("stop", "", "")
CHAT = [
    ChatMessage("user", "1 and 2?"),
    ChatMessage("assistant", "", (ToolCall("c1", "add", '{"a": 1}'), ToolCall("c2", "add", '{"a": 2}'))),
    ChatMessage("tool", "1", tool_call_id="c1"),
    ChatMessage("tool", "3", tool_call_id="c2", name="add"),
    ChatMessage("assistant", "3."),
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_known_by_what_its_template_says(family: object) -> None:
    assert family in FAMILIES
    found = next(f for f in FAMILIES if f is family)
    assert syntax_of(f"{{% if tools %}}{' '.join(found.says)}") == found.syntax
    for word in found.lacks:
        assert syntax_of(f"{{% if tools %}}{' '.join((*found.says, word))}") != found.syntax


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ tools }} '<tool_call>\n{\"name\": ' </tool_call>", "hermes, qwen"),
        ("{%- if tools is not none %} '[TOOL_CALLS] [' + tool_call.function | tojson", "mistral"),
        ("{{ tools }} '[TOOL_CALLS]' + name + '[CALL_ID]' + id + '[ARGS]' + arguments", "mistral v11"),
        ("custom_tools tools <|start_header_id|>ipython<|end_header_id|> <|python_tag|>", "llama 3"),
        ("tools <|start_header_id|>ipython <function={{ name }}>{{ arguments }}</function>", "functionary 3.1"),
        ("tools <|start_of_role|>assistant <|tool_call|>", "granite 3"),
        ("tools <tool_call>\n<function=name>\n<parameter=a>", None),
        ("tools <tool_call>name\n<arg_key>a</arg_key>", None),
        ("tools to=functions.name <|channel|>commentary", None),
    ],
)
def test_a_template_in_the_words_of_its_family(template: str, name: str | None) -> None:
    families = {family.name: family.syntax for family in FAMILIES}
    assert syntax_of(template) == (families[name] if name else None)


def test_a_template_without_tools_gets_them_in_the_way_that_is_explained() -> None:
    template = "{{ messages }} message.tool_calls stools"
    assert not knows_tools(template)
    assert syntax_of(template) == HERMES


def test_tools_as_openai_has_them() -> None:
    add, stop = tool_dicts([ADD, STOP])
    assert add == {
        "type": "function",
        "function": {"name": "add", "description": "Adds.", "parameters": json.loads(ADD.parameters)},
    }
    assert stop["function"]["parameters"] == {"type": "object", "properties": {}}


def test_messages_have_only_the_keys_that_mean_something() -> None:
    user, calls, first, second, _ = message_dicts(CHAT)
    assert user == {"role": "user", "content": "1 and 2?"}
    assert calls["tool_calls"][1] == {
        "id": "c2",
        "type": "function",
        "function": {"name": "add", "arguments": {"a": 2}},
    }
    assert first == {"role": "tool", "content": "1", "tool_call_id": "c1"}
    assert second == {"role": "tool", "content": "3", "tool_call_id": "c2", "name": "add"}
    assert message_dicts(CHAT, parsed=False)[1]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'


def test_calls_and_results_become_text_and_speakers_take_turns() -> None:
    made = spelled_out(CHAT, ())
    assert [m.role for m in made] == ["user", "assistant", "user", "assistant"]
    assert made[1].content == call_text("add", '{"a": 1}') + "\n" + call_text("add", '{"a": 2}')
    assert made[2].content == "<tool_response>\n1\n</tool_response>\n<tool_response>\n3\n</tool_response>"
    assert not any(m.tool_calls or m.tool_call_id for m in made)


@pytest.mark.parametrize(
    ("roles", "at"), [(["user"], 0), (["system", "user"], 0), (["assistant", "user"], 1), (["assistant"], 0)]
)
def test_the_tools_are_explained_once_and_as_early_as_may_be(roles: list[str], at: int) -> None:
    made = spelled_out([ChatMessage(role, "said") for role in roles], [ADD, STOP])
    (where,) = (i for i, message in enumerate(made) if '"name": "add"' in message.content)
    assert where == at
    assert made[at].content.count("<tool_call>") == 1
    assert '"name": "stop"' in made[at].content
    assert sum("said" in message.content for message in made) == len(roles)
