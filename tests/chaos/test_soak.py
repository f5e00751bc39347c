"""Whether a daemon that grows is found, and one that only breathes is not."""

from __future__ import annotations

import math
import random

import pytest

from inferd.tests.chaos import soak

MIB = 1 << 20


def samples(mib_per_hour: float, minutes: float = 60.0) -> list[soak.Sample]:
    """Of one that takes up to 20 MiB more for moments, and has 30 MiB to fill at first."""
    rng = random.Random(7)
    found = []
    for i in range(int(minutes * 60 / soak.EVERY_S)):
        at_s = i * soak.EVERY_S
        held = 100 + 30 * (1 - math.exp(-at_s / 60)) + mib_per_hour * at_s / 3600
        found.append((1e6 + at_s, int((held + rng.random() ** 2 * 20) * MIB)))
    return found


@pytest.mark.parametrize("mib_per_hour", [0.0, 0.5])
def test_one_that_breathes_is_let_pass(mib_per_hour: float) -> None:
    assert soak.slope(soak.least(samples(mib_per_hour))) < soak.SLOPE_MIB_H


@pytest.mark.parametrize("mib_per_hour", [2.0, 10.0])
def test_a_leak_is_seen(mib_per_hour: float) -> None:
    assert soak.slope(soak.least(samples(mib_per_hour))) == pytest.approx(mib_per_hour, abs=0.5)


def test_what_is_warming_up_does_not_count() -> None:
    cold = soak.least(samples(0.0), warm=0.0)
    assert soak.slope(cold) > soak.SLOPE_MIB_H
    assert len(cold) == 59
    assert soak.least([]) == []
