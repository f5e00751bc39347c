"""`inferd embed`, `inferd rerank` and `inferd tokenize`."""

from __future__ import annotations

import json
from typing import Any


def test_embed_as_a_table(inferd: Any) -> None:
    done = inferd("embed", "demo", "a green\x1b[31m house", "b")
    assert done.exit_code == 0
    assert "0.0000 0.5000" in done.stdout
    assert "a green[31m house" in done.stdout


def test_embed_as_json(inferd: Any, daemon: Any) -> None:
    shown = json.loads(inferd("embed", "demo", "a", "b", "--json", "--raw", "--dimensions", "2").stdout)
    assert shown == {
        "request_id": "r1",
        "model": "demo",
        "usage": {"prompt_tokens": 5},
        "timings": {"queue_ms": 1.0, "prefill_ms": 4.0, "e2e_ms": 30.0},
        "embeddings": [[0.0, 0.5], [1.0, 0.5]],
    }
    assert (daemon.asked[-1].normalize, daemon.asked[-1].dimensions) == (False, 2)


def test_each_line_of_a_pipe_is_a_text(inferd: Any, daemon: Any) -> None:
    assert inferd("embed", "demo", stdin="one\n\ntwo\n").exit_code == 0
    assert [one.text for one in daemon.asked[-1].inputs] == ["one", "two"]
    assert not daemon.asked[-1].HasField("normalize")
    assert inferd("rerank", "demo", "q", stdin="").exit_code == 2


def test_rerank(inferd: Any, daemon: Any) -> None:
    done = inferd("rerank", "demo", "q", "first", "second", "--top-n", "1")
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [["0.5000", "1", "second"]]
    shown = json.loads(inferd("rerank", "demo", "q", "first", "second", "--json").stdout)
    assert shown["results"] == [{"index": 1, "relevance_score": 0.5}, {"index": 0, "relevance_score": -0.5}]
    assert daemon.asked[-1].query == "q"


def test_tokenize(inferd: Any, daemon: Any) -> None:
    assert inferd("tokenize", "demo", "a text").stdout == "1 2 3\n"
    assert (daemon.asked[-1].model, daemon.asked[-1].prompt) == ("demo", "a text")
    assert json.loads(inferd("tokenize", "demo", "--json", stdin="piped").stdout) == {
        "model": "demo",
        "tokens": [1, 2, 3],
    }
    assert daemon.asked[-1].prompt == "piped"
    assert inferd("tokenize", "demo", "").exit_code == 2
