from __future__ import annotations

from typing import Any

from inferd.backends.blob import INLINE_BYTES, Blob
from inferd.backends.messages import Call, Embed, Embedded, Finished, FinishReason, Infer, Started, Stopped
from inferd.backends.onnx.orders import Run

CALL = Call(1, True, 0.0, 1.0, 0.0)


def test_vectors_are_told_in_order() -> None:
    run, events = Run(Embed("j", 1, [[1], [2], [3]]), 3, 3), []  # type: ignore[var-annotated]
    run.vectors[1] = b"b"
    run.tell(CALL, events)
    run.vectors[0] = b"a"
    run.tell(CALL, events)
    run.vectors[2] = b"c"
    run.tell(CALL, events)
    assert [(event.n, event.vectors) for event in events] == [(0, b""), (2, b"ab"), (1, b"c")]
    assert all(isinstance(event, Embedded) for event in events)


def test_a_start_is_told_once_with_what_was_known() -> None:
    run, events = Run(Embed("j", 2, [[1]], known_tokens=5), 1, 1), []  # type: ignore[var-annotated]
    run.start(1.0, events)
    run.start(2.0, events)
    assert events == [Started("j", 2, 6, 5)]


def test_an_end_closes_the_file() -> None:
    for end in ("finish", "stop"):
        blob = Blob.of([bytes(INLINE_BYTES + 1)])
        run, events = Run(Infer("j", 1, [], [], None), 1, 4, blob), []  # type: ignore[var-annotated]
        run.n_computed = 4
        getattr(run, end)(events)
        assert run.over
        assert blob.fd is None
        assert events[-1].n_computed == 4
        assert isinstance(events[-1], Finished if end == "finish" else Stopped)


def test_a_failure_names_the_field() -> None:
    events: list[Any] = []
    Run(Infer("j", 1, [], [], b""), 1, 1).finish(events, "wrong", "inputs")
    assert (events[-1].reason, events[-1].error, events[-1].error_field) == (FinishReason.ERROR, "wrong", "inputs")
