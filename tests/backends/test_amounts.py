"""What a child says is believed within bounds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inferd.backends.amounts import MAX_INPUTS
from inferd.backends.messages import Delta, Prepared, PreparedInputs, Step, WorkerStats, decode_from_worker, encode


@pytest.mark.parametrize("token", [-1, 1 << 32])
@pytest.mark.parametrize("say", [lambda t: Step([Delta("r", 1, 0, [t], "x")]), lambda t: Prepared("r", [1, t])])
def test_what_is_no_token_is_no_message(token: int, say: Any) -> None:
    assert decode_from_worker(encode(say(7)))
    with pytest.raises(msgspec.ValidationError):
        decode_from_worker(encode(say(token)))


def test_figures_of_a_worker_fit_where_they_are_shown() -> None:
    sound = WorkerStats(1, 1, 1, 1, 1, 1, 1.0, 1)
    assert decode_from_worker(encode(sound)) == sound
    for field, value in (("kv_cells_used", -1), ("running", 1 << 32), ("rss_bytes", 1 << 63)):
        with pytest.raises((msgspec.ValidationError, OverflowError)):
            decode_from_worker(encode(msgspec.structs.replace(sound, **{field: value})))


def test_lists_of_lists_are_short() -> None:
    assert decode_from_worker(encode(PreparedInputs("r", [[]] * MAX_INPUTS)))
    with pytest.raises(msgspec.ValidationError):
        decode_from_worker(encode(PreparedInputs("r", [[]] * (MAX_INPUTS + 1))))
