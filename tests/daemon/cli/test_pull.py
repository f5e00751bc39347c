"""`inferd pull` and `alias`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc

from inferd.daemon.cli import pull
from inferd.protos import inferd_pb2 as pb

if TYPE_CHECKING:
    import pytest


def test_pull(inferd: Any, daemon: Any) -> None:
    done = inferd("pull", "owner/name", "T.gguf", "--revision", "v1", "--name", "t", "--sha256", "ab")
    assert (done.exit_code, done.stdout) == (0, "t is here: T.gguf (a reason), 4.0 MiB, SHA-256 ab\n")
    (asked,) = daemon.asked
    assert asked == pb.PullModelRequest(repo="owner/name", file="T.gguf", revision="v1", name="t", sha256="ab")


def test_a_pull_as_json_is_its_end(inferd: Any, daemon: Any) -> None:
    shown = json.loads(inferd("pull", "owner/name", "--json").stdout)
    assert (shown["state"], shown["model"], shown["sha256"], shown["total_bytes"]) == ("ready", "t", "ab", 4 << 20)
    assert daemon.asked == [pb.PullModelRequest(repo="owner/name")]


def test_a_pull_that_does_not_end_well(inferd: Any, daemon: Any, steps: Any) -> None:
    daemon.pulled = daemon.pulled[:-1]
    assert inferd("pull", "owner/name").exit_code == 5
    daemon.pulled = []
    assert inferd("pull", "owner/name").exit_code == 5
    for code, exit_code in (("invalid", 2), ("not_found", 4), ("no_room", 4), ("pull_failed", 5)):
        daemon.refusal = steps.fail(grpc.StatusCode.UNAVAILABLE, code, "the hub is busy", retry_ms=7000)
        done = inferd("pull", "owner/name")
        assert (done.exit_code, done.stderr) == (exit_code, "inferd: the hub is busy; try again in 7.0 s\n")


def test_a_bar_shows_how_it_goes_on(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr("rich.progress.Progress.update", lambda self, task, **fields: told.append(fields))
    last = pull._with_bar("owner/name", iter(daemon.pulled))
    assert last == daemon.pulled[-1]
    assert [fields["description"] for fields in told] == ["looking for owner/name", "fetching T.gguf", "got T.gguf"]
    assert [fields["pace"] for fields in told] == ["", "1.9 MiB/s", ""]
    assert (told[1]["completed"], told[1]["total"]) == (1 << 20, 4 << 20)


def test_an_alias_is_set_and_taken_away(inferd: Any, daemon: Any) -> None:
    assert inferd("alias", "mine", "demo").stdout == "mine stands for demo\n"
    assert inferd("alias", "mine", "--remove").stdout == "mine is no name any more; it stood for old\n"
    assert [(asked.alias, asked.model) for asked in daemon.asked] == [("mine", "demo"), ("mine", "")]
    daemon.already = True
    assert inferd("alias", "mine", "demo").stdout == "mine stands for demo instead of old\n"
    shown = json.loads(inferd("alias", "mine", "demo", "--json").stdout)
    assert shown == {"alias": "mine", "model": "demo", "previous_model": "old"}


def test_an_alias_needs_a_model_or_goes(inferd: Any, daemon: Any) -> None:
    assert inferd("alias", "mine").exit_code == 2
    assert inferd("alias", "mine", "demo", "--remove").exit_code == 2
    assert daemon.asked == []


def test_models_show_their_other_names(inferd: Any, daemon: Any) -> None:
    daemon.catalog = [pb.ModelInfo(name="m", state="cold", task="embed", aliases=["a", "b"])]
    assert "embeds texts; also called a, b" in inferd("models").stdout
    (model,) = json.loads(inferd("models", "--json").stdout)["models"]
    assert model["aliases"] == ["a", "b"]
