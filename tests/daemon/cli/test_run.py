"""`inferd run`."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from inferd.protos import inferd_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

INFERD = (sys.executable, "-m", "inferd.daemon.cli.app")


def test_the_answer_goes_to_stdout(inferd: Any, daemon: Any) -> None:
    result = inferd("run", "demo", "hi")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "hello world\n", "")
    assert daemon.requests[0].messages.messages[0].content == "hi"


def test_text_is_not_markup_and_a_last_newline_is_not_doubled(inferd: Any, daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), steps.delta("[bold]x[/] :smile:\x1b[31m\n"), steps.finished()]
    assert inferd("run", "demo", "hi").stdout == "[bold]x[/] :smile:\x1b[31m\n"


def test_the_json_twin_is_the_contract(inferd: Any) -> None:
    result = inferd("run", "demo", "hi", "--json")
    assert json.loads(result.stdout) == {
        "text": "hello world",
        "finish_reason": "stop",
        "request_id": "r1",
        "model": "demo",
        "usage": {"prompt_tokens": 5, "cached_tokens": 2, "completion_tokens": 2},
        "timings": {"queue_ms": 1, "ttft_ms": 20, "tpot_ms": 10, "e2e_ms": 30},
    }


def test_options_reach_the_request(inferd: Any, daemon: Any) -> None:
    options = "--max-tokens 7 --temperature 0 --top-p 0.5 --top-k 3 --min-p 0 --seed 0 --stop A --stop B"
    inferd("run", "demo", "hi", *options.split(), "--priority", "batch", "--session", "s", "--deadline-ms", "9")
    request = daemon.requests[0]
    assert (request.max_tokens, request.deadline_ms, request.session_id) == (7, 9, "s")
    assert (list(request.stop), request.priority) == (["A", "B"], pb.BATCH)
    sampling = request.sampling
    assert sampling.HasField("temperature")
    assert sampling.HasField("min_p")
    assert sampling.HasField("seed")
    assert (sampling.top_p, sampling.top_k) == (0.5, 3)


def test_the_form_of_the_answer(inferd: Any, daemon: Any, tmp_path: Path) -> None:
    schema, grammar = tmp_path / "schema.json", tmp_path / "grammar.gbnf"
    schema.write_text('{"type": "object"}')
    grammar.write_text('root ::= "a"')
    inferd("run", "demo", "hi", "--json-object")
    inferd("run", "demo", "hi", "--schema", str(schema))
    inferd("run", "demo", "hi", "--grammar", str(grammar))
    forms = [request.response_format for request in daemon.requests]
    assert forms[0].json_object is True
    assert forms[1].json_schema == '{"type": "object"}'
    assert forms[2].grammar == 'root ::= "a"'
    both = inferd("run", "demo", "hi", "--json-object", "--grammar", str(grammar))
    assert (both.exit_code, "only one of" in both.stderr) == (2, True)
    assert inferd("run", "demo", "hi", "--schema", str(tmp_path / "nowhere")).exit_code == 2


def called(steps: Any) -> list[Any]:
    call = pb.ToolCallDelta(index=0, id="a", name="f", arguments='{"x": "\x1b"}')
    ends = steps.finished(reason=pb.TOOL_CALLS)
    return [steps.started(), steps.delta("Hm."), pb.GenerateResponse(delta=pb.Delta(tool_calls=[call])), ends]


def test_tools_and_their_calls(inferd: Any, daemon: Any, steps: Any, tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text('[{"type": "function", "function": {"name": "f"}}]')
    daemon.script = called(steps)
    result = inferd("run", "demo", "hi", "--tools", str(tools), "--tool-choice", "required")
    assert (result.exit_code, result.stdout) == (0, 'Hm.\nf({"x": "\x1b"})\n')
    twin = json.loads(inferd("run", "demo", "hi", "--tools", str(tools), "--tool-choice", "f", "--json").stdout)
    assert twin["tool_calls"] == [{"id": "a", "name": "f", "arguments": '{"x": "\x1b"}'}]
    assert (twin["text"], twin["finish_reason"]) == ("Hm.", "tool_calls")
    modes = [request.tool_choice for request in daemon.requests]
    assert modes == [pb.ToolChoice(mode=pb.ToolChoice.REQUIRED), pb.ToolChoice(function="f")]
    assert [tool.name for tool in daemon.requests[0].tools] == ["f"]


@pytest.mark.parametrize("text", ["{", "{}", "[1]"])
def test_a_file_without_tools_is_refused(inferd: Any, tmp_path: Path, text: str) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text(text)
    result = inferd("run", "demo", "hi", "--tools", str(tools))
    assert (result.exit_code, "--tools" in result.stderr) == (2, True)


def test_guesses_that_were_right_are_in_the_stats(inferd: Any, daemon: Any, steps: Any) -> None:
    end = steps.finished()
    end.finished.timings.draft_n, end.finished.timings.draft_n_accepted = 9, 7
    daemon.script = [steps.started(), steps.delta("x"), end]
    assert "7 of 9 guessed tokens right" in inferd("run", "demo", "hi", "--stats").stderr


def test_system_and_raw(inferd: Any, daemon: Any) -> None:
    inferd("run", "demo", "hi", "--system", "be brief")
    inferd("run", "demo", "hi", "--raw")
    assert [m.role for m in daemon.requests[0].messages.messages] == ["system", "user"]
    assert daemon.requests[1].prompt == "hi"
    assert inferd("run", "demo", "hi", "--raw", "--system", "x").exit_code == 2


@pytest.mark.parametrize("args", [("run", "demo"), ("run", "demo", "-")])
def test_the_prompt_comes_from_a_pipe(inferd: Any, daemon: Any, args: Any) -> None:
    assert inferd(*args, stdin="from a pipe").exit_code == 0
    assert daemon.requests[0].messages.messages[0].content == "from a pipe"


def test_an_empty_prompt_is_bad_usage(inferd: Any, daemon: Any) -> None:
    result = inferd("run", "demo", stdin="")
    assert (result.exit_code, result.stderr) == (2, "inferd: the prompt is empty\n")
    assert daemon.requests == []


def test_stats_go_to_stderr(inferd: Any) -> None:
    result = inferd("run", "demo", "hi", "--stats")
    assert result.stdout == "hello world\n"
    assert result.stderr == "2 tokens, 100.0 tokens/s, first after 20 ms, 2 of 5 prompt tokens cached\n"


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "invalid", 2),
        (grpc.StatusCode.NOT_FOUND, "not_found", 4),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "no_room", 4),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "queue_full", 4),
        (grpc.StatusCode.UNAVAILABLE, "shutting_down", 4),
        (grpc.StatusCode.INTERNAL, "worker_crashed", 5),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline", 5),
        (grpc.StatusCode.UNKNOWN, "a_word_of_a_later_daemon", 5),
    ],
)
def test_exit_codes_of_refusals(inferd: Any, daemon: Any, steps: Any, status: Any, code: Any, exit_code: Any) -> None:
    daemon.script = [steps.fail(status, code, "because", 1500)]
    result = inferd("run", "demo", "hi")
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr == "inferd: because; try again in 1.5 s\n"


def test_a_refusal_in_json(inferd: Any, daemon: Any, steps: Any) -> None:
    daemon.script = [steps.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "no_room", "full", None, free_bytes="4")]
    result = inferd("run", "demo", "hi", "--json")
    error = {"code": "no_room", "message": "full", "retry_after_ms": None, "details": {"free_bytes": "4"}}
    assert json.loads(result.stderr) == {"error": error}
    assert (result.exit_code, result.stdout) == (4, "")


def test_a_failure_in_mid_answer_ends_the_line(inferd: Any, daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), steps.delta("half"), steps.fail(grpc.StatusCode.INTERNAL, "internal", "ow")]
    result = inferd("run", "demo", "hi")
    assert (result.exit_code, result.stdout, result.stderr) == (5, "half\n", "inferd: ow\n")


def test_a_request_cancelled_elsewhere_has_failed(inferd: Any, daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), steps.delta("half"), steps.finished(1, pb.CANCELLED)]
    assert inferd("run", "demo", "hi").exit_code == 5


def test_nobody_there(quiet_daemon: Any) -> None:
    address = ("--address", quiet_daemon.address)
    shown = subprocess.run((*INFERD, "run", "demo", "hi", *address), capture_output=True, text=True, check=False)
    assert shown.returncode == 3
    assert shown.stderr == f"inferd: no daemon at {quiet_daemon.address}; start one with: inferd serve\n"


def test_a_bad_address_is_bad_usage(inferd: Any) -> None:
    result = inferd("run", "demo", "hi", "--address", "nonsense")
    assert result.exit_code == 2
    assert "unix:/path" in result.stderr


def heed_ctrl_c() -> None:
    """A shell starts what runs in the background deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_cancels_the_request(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), steps.delta("half"), daemon.forever]
    command = (*INFERD, "run", "demo", "hi", "--address", daemon.address)
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c)
    assert child.stdout is not None
    assert child.stdout.read(4) == "half"
    child.send_signal(signal.SIGINT)
    rest, errors = child.communicate(timeout=10)
    assert (child.returncode, rest, errors) == (130, "\n", "")
    assert daemon.ended.wait(5)


def test_a_reader_that_leaves_ends_it_quietly(daemon: Any, steps: Any) -> None:
    daemon.script = [steps.started(), *(steps.delta("x" * 5000, i) for i in range(200)), steps.finished()]
    command = (*INFERD, "run", "demo", "hi", "--address", daemon.address)
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.read(10)
    child.stdout.close()
    errors = child.stderr.read()
    child.stderr.close()
    assert (child.wait(10), errors) == (141, "")


def test_a_chat_has_no_json(monkeypatch: pytest.MonkeyPatch, inferd: Any) -> None:
    from inferd.daemon.cli import run

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert run.read_prompt(None, Terminal(), as_json=False) is None
    with pytest.raises(Exception, match="2"):
        run.read_prompt(None, Terminal(), as_json=True)


def test_a_terminal_does_not_get_what_it_would_obey(monkeypatch: pytest.MonkeyPatch, daemon: Any, steps: Any) -> None:
    from inferd import Client
    from inferd.daemon.cli.run import print_answer
    from inferd.daemon.cli.waiting import Waiting

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    daemon.script = [steps.started(), steps.delta("a\x1b]0;title\x07b\tc\x9b\n"), steps.finished()]
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with Client(daemon.address) as client:
        print_answer(client.generate("demo", "hi"), Waiting(client, "demo"))
    assert terminal.getvalue() == "a]0;titleb\tc\n"
