"""The chat of `inferd run MODEL`."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from inferd import Client
from inferd.daemon.cli.chat import Chat
from inferd.protos import inferd_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def typing(*lines: str | type[BaseException]) -> Callable[[str], str]:
    """Somebody at a keyboard: text, or the key that raises."""
    left = list(lines)

    def ask(_: str) -> str:
        line = left.pop(0) if left else EOFError
        if isinstance(line, str):
            return line
        raise line

    return ask


@pytest.fixture
def client(daemon: Any) -> Iterator[Client]:
    with Client(daemon.address) as client:
        yield client


def said(request: pb.GenerateRequest) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in request.messages.messages]


def test_the_history_goes_along(client: Client, daemon: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Chat(client, "demo", {}).loop(typing("one", "", "two"))
    assert said(daemon.requests[1]) == [("user", "one"), ("assistant", "hello world"), ("user", "two")]
    assert capsys.readouterr().out == "hello world\nhello world\n\n"


def test_a_call_is_shown_and_is_part_of_the_history(
    client: Client, daemon: Any, steps: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    call = pb.ToolCallDelta(index=0, id="a", name="f", arguments="{}")
    made = pb.GenerateResponse(delta=pb.Delta(tool_calls=[call]))
    daemon.script = [steps.started(), made, steps.finished(reason=pb.TOOL_CALLS)]
    Chat(client, "demo", {"tools": [{"name": "f"}]}).loop(typing("one", "two"))
    history = daemon.requests[1].messages.messages
    assert list(history[1].tool_calls) == [pb.ToolCall(id="a", name="f", arguments="{}")]
    assert capsys.readouterr().out == "f({})\nf({})\n\n"


@pytest.mark.parametrize(("text", "kept"), [("", []), ("so", [("user", "one"), ("assistant", "so")])])
def test_half_a_call_is_no_part_of_the_history(
    client: Client, daemon: Any, steps: Any, text: str, kept: list[tuple[str, str]]
) -> None:
    call = pb.ToolCallDelta(index=0, id="a", name="f", arguments='{"city": "Ber')
    half = pb.GenerateResponse(delta=pb.Delta(text=text, tool_calls=[call]))
    daemon.script = [steps.started(), half, steps.finished(reason=pb.LENGTH)]
    Chat(client, "demo", {"tools": [{"name": "f"}]}).loop(typing("one", "two"))
    assert said(daemon.requests[1]) == [*kept, ("user", "two")]
    assert not any(message.tool_calls for message in daemon.requests[1].messages.messages)


def test_commands(client: Client, daemon: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Chat(client, "demo", {}).loop(
        typing("one", "/clear", "/system be brief", "two", "/system", "three", "/nope", "/help")
    )
    assert said(daemon.requests[1]) == [("system", "be brief"), ("user", "two")]
    assert said(daemon.requests[2])[0] == ("user", "two")
    errors = capsys.readouterr().err
    assert "there is no /nope" in errors
    assert "/system TEXT" in errors


def test_bye_leaves(client: Client, daemon: Any) -> None:
    Chat(client, "demo", {}).loop(typing("/bye", "never said"))
    assert daemon.requests == []


def test_ctrl_c_at_the_prompt_stays(client: Client, daemon: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Chat(client, "demo", {}).loop(typing(KeyboardInterrupt, "one"))
    assert len(daemon.requests) == 1
    assert "/bye leaves" in capsys.readouterr().err


def test_ctrl_c_keeps_what_was_said(client: Client, daemon: Any, steps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.script = [steps.started(), steps.delta("half"), daemon.forever]
    chat = Chat(client, "demo", {})
    monkeypatch.setattr(sys.stdout, "flush", interrupting)
    chat.say("one")
    monkeypatch.undo()
    assert daemon.ended.wait(5)
    assert [message["content"] for message in chat.messages] == ["one", "half"]


def interrupting() -> None:
    """Ctrl-C while the first piece is being written; the second call is the line's end."""
    if sys.exc_info()[0] is None:
        raise KeyboardInterrupt


def test_a_refused_message_leaves_no_trace(
    client: Client, daemon: Any, steps: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.script = [steps.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue_full", "2,048 wait")]
    chat = Chat(client, "demo", {})
    chat.loop(typing("one"))
    assert chat.messages == []
    assert "inferd: 2,048 wait" in capsys.readouterr().err


def test_raw_lines_stand_alone(client: Client, daemon: Any) -> None:
    Chat(client, "demo", {"raw": True}).loop(typing("one", "two"))
    assert [request.prompt for request in daemon.requests] == ["one", "two"]


def test_stats_follow_each_answer(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    Chat(client, "demo", {}, stats=True).loop(typing("one"))
    assert "100.0 tokens/s" in capsys.readouterr().err


def test_on_a_real_terminal(daemon: Any) -> None:
    ours, theirs = pty.openpty()
    command = (sys.executable, "-m", "inferd.daemon.cli.app", "run", "demo", "--address", daemon.address)
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        assert b"chatting with demo" in read_until(ours, b">>> ")
        os.write(ours, b"hi\n")
        # Keys typed before the next prompt could be eaten by the change of the terminal's mode.
        assert b"hello world" in read_until(ours, b">>> ")
        os.write(ours, b"\x04")
        assert child.wait(10) == 0
    os.close(ours)


def read_until(fd: int, wanted: bytes) -> bytes:
    shown = b""
    while wanted not in shown:
        shown += os.read(fd, 4096)
    return shown
