"""The config read again: all of it, or none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from inferd.daemon.domain.config import ModelOptions, Queue
from inferd.daemon.domain.errors import Code
from inferd.daemon.domain.event import Kind
from inferd.daemon.domain.model import ModelState
from inferd.daemon.node.reload import Reload
from inferd.daemon.system.settings import ConfigError
from inferd.tests.daemon.node.house import ENDLESS, GIB, SLOW, failure, first_text, read
from inferd.tests.daemon.node.test_machine import machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inferd.daemon.domain.config import Config
    from inferd.tests.daemon.node.house import House


def changed(config: Config, **sections: Any) -> Config:
    return msgspec.structs.replace(config, **sections)


def options(config: Config, **fields: Any) -> Config:
    defaults = msgspec.structs.replace(config.models.defaults, **fields)
    return changed(config, models=msgspec.structs.replace(config.models, defaults=defaults))


def reload(house: House, config: Config) -> Reload:
    return Reload(house.node, machine(), lambda: config)


async def test_what_changed_is_told_and_holds(house: House) -> None:
    new = changed(house.node.config, queue=Queue(max_requests=7), log_level="error")
    merged = await reload(house, new)()
    assert set(merged.changed) == {"queue.max_requests", "log_level"}
    assert house.node.config == new
    assert house.node.scheduler.desk.limits.max_requests == 7
    assert house.told(Kind.CONFIG_RELOADED) == ["the config was read again; changed: queue.max_requests, log_level"]


async def test_what_holds_from_the_next_start_is_kept_and_warned_of(house: House) -> None:
    old = house.node.config
    new = changed(old, server=msgspec.structs.replace(old.server, address="unix:/elsewhere"))
    merged = await reload(house, new)()
    assert (merged.changed, merged.needs_restart) == ((), ("server.address",))
    assert house.node.config == old
    assert house.node.health.needs_restart == ("server.address",)
    await reload(house, old)()
    assert not house.node.health.needs_restart


async def test_a_config_that_cannot_be_used_changes_nothing(house: House) -> None:
    def broken() -> Config:
        raise ConfigError("/etc/inferd/inferd.toml", "`queue.max_requests`: expected `int` >= 1")

    old = house.node.config
    error = await failure(Reload(house.node, machine(), broken)())
    assert error.code is Code.BAD_CONFIG
    assert "queue.max_requests" in error.message
    assert "/etc" not in error.message  # no path reaches a client
    assert house.node.config is old
    assert house.node.health.config_error == error.message
    assert house.told(Kind.CONFIG_REFUSED) == [error.message]
    await reload(house, old)()
    assert house.node.health.config_error == ""


async def test_a_folder_of_nobody_is_refused(house: House) -> None:
    models = msgspec.structs.replace(house.node.config.models, folders=("~nobody-has-this-name/x",))
    error = await failure(reload(house, changed(house.node.config, models=models))())
    assert "models.folders" in error.message


async def test_folders_are_looked_in_at_once(house: House, tmp_path: Path) -> None:
    models = msgspec.structs.replace(house.node.config.models, folders=(str(tmp_path / "empty"),))
    await reload(house, changed(house.node.config, models=models))()
    assert "alpha" not in house.node.catalog.scan()


async def test_options_of_a_cold_model_hold_at_its_next_load(house: House) -> None:
    assert (await house.load()).plan.n_slots == 2
    await reload(house, options(house.node.config, slots=1))()
    assert house.resident().plan.n_slots == 2  # it is loaded, and stays as it is
    await house.node.wishes.unload("alpha", force=False)
    assert (await house.load()).plan.n_slots == 1
    assert house.deployment().outdated is False


async def test_what_runs_is_not_disturbed(open_house: Callable[..., House]) -> None:
    house = open_house(tokens_per_s=SLOW)
    stream = house.submit(ENDLESS.replace("1000", "30"))
    seen = await first_text(stream)
    await reload(house, options(house.node.config, slots=1))()
    assert house.state() is ModelState.READY
    seen += await read(stream)
    assert sum(len(event.tokens) for event in seen if hasattr(event, "tokens")) == 30


async def test_memory_has_other_limits_at_once(house: House) -> None:
    old = house.node.config
    new = changed(old, memory=msgspec.structs.replace(old.memory, host_margin_bytes=GIB, host_budget_bytes=2 * GIB))
    await reload(house, new)()
    assert house.node.ledger.pools["host"].usable_bytes == 2 * GIB


async def test_a_model_by_name_gets_its_own_options(house: House) -> None:
    by_name = {"alpha": ModelOptions(context_tokens=512)}
    models = msgspec.structs.replace(house.node.config.models, by_name=by_name)
    merged = await reload(house, changed(house.node.config, models=models))()
    assert merged.changed == ("models.model.alpha.context_tokens",)
    assert house.resident().plan.n_ctx == 512


async def test_a_daemon_that_ends_takes_nothing_over(house: House) -> None:
    house.node.closing = True
    assert (await failure(reload(house, house.node.config)())).code is Code.SHUTTING_DOWN
    house.node.closing = False


async def test_what_the_next_start_would_refuse_is_refused_now(house: House) -> None:
    server = msgspec.structs.replace(house.node.config.server, tcp_address="0.0.0.0:50051")
    error = await failure(reload(house, changed(house.node.config, server=server))())
    assert (error.code, "server.tcp_address" in error.message) == (Code.BAD_CONFIG, True)
    jobs = msgspec.structs.replace(house.node.config.jobs, folder="~nobody-has-this-name/x")
    assert "jobs.folder" in (await failure(reload(house, changed(house.node.config, jobs=jobs))())).message


async def test_another_cage_holds_at_the_next_load_of_each_model(house: House) -> None:
    await house.load()
    workers = msgspec.structs.replace(house.node.config.workers, sandbox="off")
    await reload(house, changed(house.node.config, workers=workers))()
    assert house.resident().plan.sandbox == "auto"
    await house.node.wishes.unload("alpha", force=False)
    assert (await house.load()).plan.sandbox == "off"
