from __future__ import annotations

import json
import shlex

from hypothesis import given
from hypothesis import strategies as st

from inferd.protos import inferd_pb2 as pb
from inferd.tests.tui import samples
from inferd.tests.tui.samples import request
from inferd.tui import state
from inferd.tui.cells import text_of, width_of
from inferd.tui.panels import why as panel
from inferd.tui.state import State

NOW = state.on_snapshot(State(), samples.snapshot(), 1.0)
WAITS = next(r for r in samples.requests() if r.id == "r8f2a")


def brief(row: pb.RequestState, width: int = 78, height: int = 9) -> list[str]:
    return [text_of(line) for line in panel.brief(row, NOW, samples.records(), width, height)]


def test_the_reason_comes_first_then_place_and_eta() -> None:
    lines = brief(WAITS, 120)
    assert lines[0] == f"r8f2a waits: {samples.WHY['room']}"
    assert lines[1] == "number 1 of 2 in line for mistral-7b-q5; first token expected in 2-5s"
    assert "normal | web | mistral-7b-q5" in lines[2]


def test_the_last_decisions_follow_while_there_is_room() -> None:
    assert brief(WAITS, 120)[-1].startswith("    3s ago  queue")
    assert len(brief(WAITS, 78, 3)) == 3


def test_a_running_one_says_where_and_how_fast() -> None:
    assert panel.place(request("r1", tokens=5, tokens_per_s=48.1), NOW) == "runs on gpu0 at 48.1 tokens/s"
    assert "its prompt is being computed" in panel.place(request("r1"), NOW)
    assert panel.place(request("r1", task="embed"), NOW) == "runs on gpu0"
    assert "makes way" in panel.place(request("r1", "parking"), NOW)
    assert panel.place(request("r1", "queued"), NOW) == "waits"


def test_figures_name_what_there_is() -> None:
    facts = panel.figures(request("r1", moves=2, deadline_in_ms=51_000.0, stalled_ms=3000.0, cached_tokens=1622))
    text = " ".join(facts)
    for word in ("1,841 tokens (1,622 cached)", "lost its slot 2 times", "deadline in 51s", "taken nothing for 3.0s"):
        assert word in text
    assert "prompt not read yet" in " ".join(panel.figures(pb.RequestState(id="r1")))


@given(st.integers(20, 160), st.integers(1, 20))
def test_it_keeps_to_its_room(width: int, height: int) -> None:
    for row in samples.requests():
        lines = panel.brief(row, NOW, samples.records(), width, height)
        assert len(lines) <= height
        assert all(width_of(line) <= max(width, 31) for line in lines)


@given(st.text(), st.text())
def test_a_request_as_a_command_is_one_that_a_shell_takes(model: str, tenant: str) -> None:
    command = panel.as_command(request("r1", model=model, tenant=tenant, max_tokens=7), "unix:/run/inferd.sock")
    parts = shlex.split(command)
    body = json.loads(parts[parts.index("-d") + 1])
    assert body == {"model": model, "priority": "INTERACTIVE", "prompt": "...", "max_tokens": 7}
    assert parts[-3:] == ["-unix", "/run/inferd.sock", "inferd.v1.Inference/Generate"]
    assert f"inferd-tenant: {tenant}" in parts


def test_other_tasks_have_other_methods_and_other_daemons_their_address() -> None:
    embed = panel.as_command(request("r1", task="embed", max_tokens=7), "ws1:50051")
    assert embed.endswith("ws1:50051 inferd.v1.Inference/Embed")
    assert "inputs" in embed
    assert "max_tokens" not in embed
    assert panel.as_command(request("r1", task="rank"), "ws1:50051").endswith("Rerank")
