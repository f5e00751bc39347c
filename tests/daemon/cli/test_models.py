"""`inferd models`, `load` and `unload`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc

from inferd.daemon.cli import models
from inferd.protos import inferd_pb2 as pb

if TYPE_CHECKING:
    import pytest


def test_models_as_a_table(inferd: Any, daemon: Any) -> None:
    daemon.catalog.append(pb.ModelInfo(name="bad", state="failed", error="\x1b[31mnot a GGUF file"))
    shown = inferd("models").stdout
    assert "5 M" in shown
    assert "[31mnot a GGUF file" in shown
    assert "\x1b" not in shown


def test_what_a_model_is_for_is_said_unless_it_chats(inferd: Any, daemon: Any) -> None:
    told = {"embed": "embeds texts", "infer": "takes tensors", "generate": "no chat template"}
    for task in told:
        daemon.catalog = [pb.ModelInfo(name="m", state="cold", task=task)]
        assert told[task] in inferd("models").stdout
    daemon.catalog = [pb.ModelInfo(name="m", state="cold", task="generate", chat=True)]
    assert "no chat template" not in inferd("models").stdout


def test_models_as_json(inferd: Any) -> None:
    (model,) = json.loads(inferd("models", "--json").stdout)["models"]
    assert (model["name"], model["state"], model["parameters"]) == ("demo", "cold", 5_000_000)


def test_no_models_says_what_to_do(inferd: Any, daemon: Any) -> None:
    daemon.catalog = []
    assert "--models DIR" in inferd("models").stdout
    assert json.loads(inferd("models", "--json").stdout) == {"models": []}


def test_load(inferd: Any) -> None:
    done = inferd("load", "demo")
    assert (done.exit_code, done.stdout) == (0, "demo is ready on cpu after 0.1 s\n")
    shown = json.loads(inferd("load", "demo", "--json").stdout)
    assert shown == {"model": "demo", "state": "ready", "load_ms": 120, "device": "cpu"}


def test_a_load_that_does_not_end_well(inferd: Any, daemon: Any, steps: Any) -> None:
    daemon.progress = [pb.LoadProgress(state="failed")]
    assert inferd("load", "demo").exit_code == 5
    daemon.progress = []
    assert inferd("load", "demo").exit_code == 5
    daemon.refusal = steps.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "no_room", "needs 9 GiB, 4 are free")
    refused = inferd("load", "demo")
    assert (refused.exit_code, refused.stderr) == (4, "inferd: needs 9 GiB, 4 are free\n")


def test_the_bar_reads_to_the_end(daemon: Any, capsys: pytest.CaptureFixture[str]) -> None:
    last = models._with_bar("[red]demo", iter(daemon.progress))
    assert last is daemon.progress[-1]
    assert capsys.readouterr().out == ""


def test_unload(inferd: Any, daemon: Any) -> None:
    assert inferd("unload", "demo").stdout == "demo is unloaded\n"
    assert inferd("unload", "other", "--force").stdout == "other was not loaded\n"
    assert daemon.asked[-1].force is True
    assert json.loads(inferd("unload", "demo", "--json").stdout) == {"model": "demo", "was_loaded": True}
