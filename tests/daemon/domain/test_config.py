"""The config's structs: every section refuses what it does not know, and defaults pass their own limits."""

from __future__ import annotations

from typing import get_type_hints

import msgspec
import pytest

from inferd.daemon.domain import config
from inferd.daemon.domain.config import Config, ModelOptions

SECTIONS = [it for it in vars(config).values() if isinstance(it, type) and issubclass(it, msgspec.Struct)]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_a_section_refuses_what_it_does_not_know(section: type[msgspec.Struct]) -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `no_such_field`"):
        msgspec.convert({"no_such_field": 1}, section)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_the_defaults_pass_their_own_limits(section: type[msgspec.Struct]) -> None:
    default = section()
    assert msgspec.convert(msgspec.to_builtins(default), section) == default


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_names_of_quantities_say_their_unit(section: type[msgspec.Struct]) -> None:
    plain = {"slots", "replicas", "threads", "kv_cells", "gpu_layers", "max_requests", "max_requests_per_tenant"}
    plain |= {"max_batch_size", "max_queue_delay_microseconds", "instances"}  # Triton's names
    plain |= {
        "max_streams_per_connection",
        "tokens_per_s",
        "max_tokens_per_tenant",
        "max_parks",
        "floor_share",
        "max_pulls",
    }
    plain |= {"max_jobs", "max_jobs_per_tenant", "tenant_share", "memory_slack"}
    hints = get_type_hints(section)
    figures = {name for name, hint in hints.items() if hint in (int, float, int | None, float | None)}
    assert {name for name in figures - plain if not name.endswith(("_bytes", "_s", "_ms", "_tokens"))} == set()


@pytest.mark.parametrize(
    ("section", "table"),
    [
        ("server", {"drain_s": -1}),
        ("server", {"drain_s": float("nan")}),
        ("server", {"max_message_bytes": 1}),
        ("server", {"max_message_bytes": 65 * 2**20}),
        ("queue", {"max_requests": 0}),
        ("memory", {"host_margin_bytes": -1}),
        ("fake", {"tokens_per_s": -1.0}),
    ],
)
def test_what_lies_outside_is_refused(section: str, table: dict[str, float]) -> None:
    with pytest.raises(msgspec.ValidationError, match=rf"at `\$\.{section}\.{next(iter(table))}`"):
        msgspec.convert({section: table}, Config)


@pytest.mark.parametrize(
    "options", [{"slots": 0}, {"slots": 65}, {"gpu_layers": -2}, {"kv_type": "q9"}, {"numerics": "nice"}]
)
def test_options_of_a_model_are_limited(options: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(options, ModelOptions)


def test_a_model_is_written_as_models_model_name() -> None:
    table = {"models": {"folders": ["/a"], "defaults": {"slots": 2}, "model": {"x.y": {"keep_alive_s": -1}}}}
    models = msgspec.convert(table, Config).models
    assert models.folders == ("/a",)
    assert models.defaults.slots == 2
    assert models.by_name["x.y"].keep_alive_s == -1
