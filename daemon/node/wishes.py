"""Models that are wanted without a request: loads, leases, and their end."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from ..domain.errors import Code, InferdError
from ..domain.model import ModelState
from .deployment import LOADED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from ..domain.model import Model
    from .deployment import Deployment
    from .node import Node


class Wishes:
    """What the doors ask for; each returns when it is so, or raises InferdError."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._lease_ids = itertools.count(1)

    async def load(self, name: str) -> AsyncGenerator[Model, None]:
        """Have a model loaded; yields it at each change until it is ready. Raises InferdError when it fails."""
        self.node.refuse_new()
        deployment = self.node.fleet.get(name)
        name = deployment.name
        deployment.askers += 1
        try:
            async for model in self._load(deployment):
                yield model
        finally:
            deployment.askers -= 1
            if not deployment.askers:
                self.node.carry_out(self.node.scheduler.on_load_withdrawn(name, time.monotonic()))

    async def _load(self, deployment: Deployment) -> AsyncIterator[Model]:
        name = deployment.name
        self._ask(deployment)
        while deployment.state is not ModelState.READY:
            if deployment.load_error is not None and deployment.state not in LOADED:
                raise deployment.load_error
            change = self.node.changes.next()  # taken first: the reader of what we yield may be slow
            yield deployment.model
            await change
            deployment = self.node.fleet.deployments[name]  # another one, if its file was replaced meanwhile
            if deployment.state is ModelState.COLD and deployment.load_error is None:
                self._ask(deployment)  # a place that was closed meanwhile took the first ask with it
        yield deployment.model

    async def lease(self, name: str) -> AsyncGenerator[Model, None]:
        """Have a model loaded, and keep it so until the iterator is closed; yields it with each new worker."""
        node, lease = self.node, f"lease-{next(self._lease_ids)}"
        node.refuse_new()
        deployment = node.fleet.get(name)
        name = deployment.name
        if deployment.state is ModelState.FAILED:
            raise deployment.speaker.refusal(time.monotonic())
        deployment.refused = None
        held_pid: int | None = None
        node.carry_out(node.scheduler.on_lease(name, lease, time.monotonic()))
        try:
            while not node.closing:
                change = node.changes.next()
                deployment = node.fleet.deployments[name]
                model = deployment.model
                if model.state is ModelState.READY:
                    if model.pid != held_pid:
                        held_pid = model.pid
                        yield model
                elif deployment.refused is not None:
                    raise deployment.refused
                await change
            node.refuse_when_closing()
        finally:
            node.carry_out(node.scheduler.on_lease_ended(name, lease, time.monotonic()))

    async def unload(self, name: str, force: bool) -> bool:
        """Unload a model and end its leases; False when it was not loaded. What runs ends first, unless `force`."""
        fleet = self.node.fleet
        deployment = fleet.get(name)
        name = deployment.name
        if not deployment.prompter.busy:
            deployment.prompter.close()
        loaded = [resident for resident in deployment.residents.values() if resident.model.state in LOADED]
        if not loaded:
            return False
        deployment.refused = InferdError(Code.CANCELLED, f"{name} was unloaded")
        self.node.scheduler.on_given_up(name)
        for resident in loaded:
            fleet.drain(resident, force)
        while any(resident.model.state is ModelState.DRAINING for resident in loaded):
            await self.node.changes.wait()
        return True

    def _ask(self, deployment: Deployment) -> None:
        node, now_s = self.node, time.monotonic()
        node.refuse_when_closing()
        if deployment.state is ModelState.FAILED:
            raise deployment.speaker.refusal(now_s)
        if deployment.state in (ModelState.COLD, ModelState.DRAINING):
            deployment.load_error = None
            node.carry_out(node.scheduler.on_load(deployment.name, now_s))
