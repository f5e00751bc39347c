"""Workers that are there and do nothing: after how many looks they count as dead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.policy.vigil import FIRST_STEP_S, SILENT_LOOKS, STOPPED_LOOKS, Vigil


def look(vigil: Vigil, beats: float, *, stopped: bool = False, age_s: float = 0.0, longest_s: float = 1.0) -> str:
    return vigil.look(stopped=stopped, beats=beats, step_age_s=age_s, longest_s=longest_s, step_limit_s=60.0)


def test_one_that_is_stopped_is_given_one_look_to_wake() -> None:
    vigil = Vigil()
    found = [look(vigil, beats, stopped=stopped) for beats, stopped in enumerate((True, False, True, True), start=1)]
    assert found[:-1] == ["", "", ""]
    assert "stopped" in found[-1]
    assert STOPPED_LOOKS == 2


def test_a_heart_that_stands_still_is_noticed_after_some_looks() -> None:
    vigil = Vigil()
    found = [look(vigil, 7.0) for _ in range(SILENT_LOOKS + 1)]
    assert found[:-1] == [""] * SILENT_LOOKS
    assert "no sign of life" in found[-1]


def test_one_that_has_not_begun_to_beat_is_left_alone() -> None:
    vigil = Vigil()
    assert not any(look(vigil, 0.0) for _ in range(100))


@pytest.mark.parametrize(
    ("age_s", "longest_s", "ends"),
    [(59.0, 1.0, False), (61.0, 1.0, True), (61.0, 7.0, False), (71.0, 7.0, True)],
)
def test_a_step_may_take_ten_times_the_longest_and_always_the_limit(age_s: float, longest_s: float, ends: bool) -> None:
    assert bool(look(Vigil(), 1.0, age_s=age_s, longest_s=longest_s)) is ends


def test_the_first_step_of_all_may_take_longer() -> None:
    assert not look(Vigil(), 1.0, age_s=FIRST_STEP_S - 1, longest_s=0.0)
    assert look(Vigil(), 1.0, age_s=FIRST_STEP_S + 1, longest_s=0.0)


def test_without_a_limit_a_step_may_take_for_ever() -> None:
    assert not Vigil().look(stopped=False, beats=1.0, step_age_s=1e9, longest_s=1.0, step_limit_s=0.0)


@given(st.lists(st.booleans(), max_size=50))
def test_a_heart_that_beats_between_any_two_looks_is_well(skips: list[bool]) -> None:
    """However much faster it beats than we look."""
    vigil, beats = Vigil(), 0.0
    for skip in skips:
        beats += 1 + skip
        assert not look(vigil, beats)


def look_at_load(
    vigil: Vigil,
    progress: float,
    cpu_ticks: int,
    *,
    faults: int = 3,
    pages: int = 100,
    asleep: bool = True,
    limit_s: float = 60.0,
) -> str:
    return vigil.look_at_load((progress, faults), pages, cpu_ticks, asleep=asleep, step_limit_s=limit_s)


def test_a_load_that_does_nothing_is_ended_after_as_long_as_a_step_may_take() -> None:
    vigil = Vigil()
    found = [look_at_load(vigil, 0.5, 7) for _ in range(62)]
    assert found[:-1] == [""] * 61
    assert "nothing at all for 61 s" in found[-1]


@pytest.mark.parametrize("asleep", [True, False])
def test_a_load_that_waits_for_the_disk_or_computes_may_take_longer(asleep: bool) -> None:
    vigil = Vigil()
    found = [look_at_load(vigil, 0.5, ticks if asleep else 7, asleep=asleep) for ticks in range(int(FIRST_STEP_S) + 2)]
    assert found[:-1] == [""] * (int(FIRST_STEP_S) + 1)
    assert "no further for 601 s" in found[-1]


def test_a_load_that_gets_on_is_left_alone_however_long_it_takes() -> None:
    vigil = Vigil()
    assert not any(look_at_load(vigil, look // 50, 7) for look in range(5_000))


@pytest.mark.parametrize("what", ["faults", "pages"])
def test_what_is_read_from_a_disk_gets_on_though_the_engine_says_nothing(what: str) -> None:
    vigil = Vigil()
    looks: list[dict[str, int]] = [{what: look // 50} for look in range(5_000)]
    assert not any(look_at_load(vigil, 0.0, 7, asleep=False, **look) for look in looks)


def test_memory_that_comes_and_goes_is_no_progress() -> None:
    vigil = Vigil()
    found = [look_at_load(vigil, 0.0, look, asleep=False, pages=100 + look % 7) for look in range(700)]
    assert "no further" in found[-1]


def test_without_a_limit_a_load_may_take_for_ever() -> None:
    vigil = Vigil()
    assert not any(look_at_load(vigil, 0.5, 7, limit_s=0.0) for _ in range(1_000))
