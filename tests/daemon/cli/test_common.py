"""What every verb shares."""

from __future__ import annotations

from typing import Any

import pytest

from inferd.daemon.cli import common
from inferd.daemon.domain.errors import Code


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (500 * 2**20, "500 MiB"), (3 * 2**40, "3.0 TiB")],
)
def test_bytes_for_people(n_bytes: Any, text: Any) -> None:
    assert common.size(n_bytes) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "-"), (999, "999"), (32_768, "32.8 k"), (494e6, "494 M"), (8.03e9, "8.03 B")]
)
def test_counts_for_people(number: Any, text: Any) -> None:
    assert common.count(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(4.21, "4.2 s"), (180, "3 min"), (9000, "2.5 h")])
def test_spans_for_people(seconds: Any, text: Any) -> None:
    assert common.duration(seconds) == text


def test_every_code_of_the_daemon_has_been_thought_of() -> None:
    failed = {code.value for code in Code} - set(common.EXIT_CODES)
    assert failed == {
        "cancelled", "deadline", "internal", "model_corrupt", "model_failed", "pull_failed", "slow_consumer",
        "superseded", "template_failed", "worker_crashed", "worker_oom",
    }  # fmt: skip
