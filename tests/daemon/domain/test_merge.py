from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.domain.config import Config
from inferd.daemon.domain.merge import AT_START, differences, merge


def config(**sections: object) -> Config:
    return msgspec.convert(sections, Config)


OLD = config(queue={"max_requests": 9}, models={"model": {"m": {"slots": 2}, "gone": {"slots": 3}}})


def test_nothing_changes_nothing() -> None:
    assert merge(OLD, OLD) == (OLD, (), ())


def test_settings_are_named_as_a_file_has_them() -> None:
    new = config(queue={"max_requests": 8}, models={"model": {"m": {"slots": 4, "kv_type": "q8_0"}}}, log_level="error")
    merged = merge(OLD, new)
    assert merged.config == new
    names = (
        "models.model.m.slots",
        "models.model.m.kv_type",
        "models.model.gone.slots",
        "queue.max_requests",
        "log_level",
    )
    assert sorted(merged.changed) == sorted(names)
    assert merged.needs_restart == ()


def test_what_is_read_at_the_start_waits_for_the_next_one() -> None:
    new = config(server={"address": "unix:/other", "drain_s": 5.0}, fake={"enabled": True, "load_s": 3.0})
    merged = merge(OLD, new)
    assert sorted(merged.needs_restart) == ["fake.enabled", "fake.load_s", "server.address"]
    assert (merged.config.server.address, merged.config.server.drain_s) == ("", 5.0)
    assert merged.config.fake == OLD.fake


@pytest.mark.parametrize("name", AT_START)
def test_every_such_name_is_one_of_a_setting(name: str) -> None:
    at: object = Config()
    for part in name.split("."):
        at = getattr(at, part)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    numbers = st.integers(1, 3)
    return config(
        server={"address": draw(st.sampled_from(["", "unix:/a"])), "drain_s": float(draw(numbers))},
        queue={"max_requests": draw(numbers)},
        models={"model": draw(st.dictionaries(st.sampled_from("ab"), st.fixed_dictionaries({"slots": numbers})))},
        fake={"load_s": float(draw(numbers))},
    )


@given(configs(), configs())
def test_two_configs_differ_in_what_was_told_and_in_no_more(old: Config, new: Config) -> None:
    merged = merge(old, new)
    assert set(merged.changed) == set(differences(old, merged.config))
    assert set(merged.needs_restart) == set(differences(merged.config, new))
    assert set(merged.changed) | set(merged.needs_restart) == set(differences(old, new))
    assert all(any(name == it or name.startswith(f"{it}.") for it in AT_START) for name in merged.needs_restart)
