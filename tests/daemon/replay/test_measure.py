"""The costs of a daemon that runs."""

from __future__ import annotations

from typing import Any

import pytest

from inferd.daemon.replay.engine import Costs
from inferd.daemon.replay.measure import PROMPT_TOKENS, costs_of, measured
from inferd.protos import inferd_pb2 as pb


def test_a_step_has_a_fixed_part_and_one_for_each_stream() -> None:
    costs = costs_of(prefill_ms=256.0, one_ms=10.0, all_ms=24.0, slots=8)
    assert costs.prefill_tokens_per_s == pytest.approx(PROMPT_TOKENS / 0.256)
    assert (costs.step_s, costs.row_s) == pytest.approx((0.008, 0.002))


def test_what_cannot_be_told_apart_is_the_fixed_part() -> None:
    assert costs_of(0.0, 10.0, 9.0, slots=8) == Costs(step_s=0.010)
    assert costs_of(0.0, 10.0, 10.0, slots=1) == Costs(step_s=0.010)


async def test_it_asks_the_daemon(daemon: Any) -> None:
    demo = pb.ModelState(name="demo", slots=3, kv_cells=512, context_tokens=256)
    daemon.seen = pb.Snapshot(models=[demo])
    machine = await measured(daemon.address, "demo")
    assert (machine.slots, machine.kv_cells, machine.context_tokens) == (3, 512, 256)
    assert machine.costs == Costs(PROMPT_TOKENS / 4 * 1e3, step_s=0.010)  # as the script says: 4 ms, 10 ms a token
    assert len(daemon.requests) == 3 + 3
