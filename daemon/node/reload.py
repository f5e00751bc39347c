"""The config read again while the daemon serves: all of it is taken over, or none."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ..domain.errors import Code, InferdError
from ..domain.event import Kind, Severity
from ..domain.merge import Merged, merge
from ..policy.reconfigure import reconfigure
from ..system.doors import BadDoor, doors_of
from ..system.settings import ConfigError, expanded, model_folders
from .plans import options_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..domain.config import Config
    from .machine import Machine
    from .node import Node

log = logging.getLogger(__name__)


class Reload:
    """`read` reads the file, with what the command line says on top; it raises ConfigError."""

    def __init__(self, node: Node, machine: Machine, read: Callable[[], Config]) -> None:
        self.node, self.machine = node, machine
        self._read = read
        self._one = asyncio.Lock()

    async def __call__(self) -> Merged:
        """Raises InferdError, and then nothing has changed but what the Snapshot warns of."""
        async with self._one:
            self.node.refuse_when_closing()
            try:
                read = await asyncio.to_thread(self._read)
                folders = model_folders(read)
                check(read)
            except (ConfigError, BadDoor) as error:
                log.error("the config was not taken over: %s", error)
                text = error.text if isinstance(error, ConfigError) else str(error)
                self.node.health.config_error = message = f"the config was not taken over: {text}"
                self.node.events.note(Severity.ERROR, Kind.CONFIG_REFUSED, message)
                raise InferdError(Code.BAD_CONFIG, message) from None
            return self._take_over(read, folders)

    def _take_over(self, read: Config, folders: list[Path]) -> Merged:
        node, old = self.node, self.node.config
        merged = merge(old, read)
        node.health.config_error, node.health.needs_restart = "", merged.needs_restart
        node.config = config = merged.config
        reconfigure(node.scheduler, config)
        self.machine.limit(config.memory, node.ledger)
        node.catalog.folders = tuple(folders)
        for deployment in node.fleet.deployments.values():
            name = deployment.name
            boxed_otherwise = config.workers.sandbox != old.workers.sandbox
            if boxed_otherwise or options_for(name, config) != options_for(name, old):
                deployment.outdated = True
        logging.getLogger().setLevel(config.log_level.upper())
        log.info("config taken over; changed: %s", ", ".join(merged.changed) or "nothing")
        if merged.needs_restart:
            log.warning("these hold from the next start: %s", ", ".join(merged.needs_restart))
        node.events.note(Severity.INFO, Kind.CONFIG_RELOADED, _told(merged))
        node.look_again()
        node.changes.notify()
        return merged


def check(config: Config) -> None:
    """What the next start would refuse is refused now. Raises ConfigError or BadDoor."""
    doors_of(config)
    files = {
        "records.arrivals_file": config.records.arrivals_file,
        "records.decisions_file": config.records.decisions_file,
    }
    for field, path in {**files, "jobs.folder": config.jobs.folder}.items():
        if path:
            expanded(path, field)


def _told(merged: Merged) -> str:
    told = f"the config was read again; changed: {', '.join(merged.changed) or 'nothing'}"
    return told + (f"; from the next start: {', '.join(merged.needs_restart)}" if merged.needs_restart else "")
