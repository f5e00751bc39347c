"""A Node over the fake engine, with real worker processes and two small model files; what its tests say to it."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from inferd.backends.messages import SamplingParams, Submit
from inferd.daemon.domain.config import Config, Fake, ModelOptions, Models
from inferd.daemon.domain.errors import InferdError
from inferd.daemon.domain.request import Priority, Request
from inferd.daemon.node.node import Node
from inferd.daemon.node.plans import Gpu
from inferd.daemon.node.stream import Finished, Text
from inferd.daemon.policy.audit import check_integrity
from inferd.daemon.policy.ledger import Ledger
from inferd.daemon.system.catalog import Catalog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from inferd.daemon.domain.event import Kind
    from inferd.daemon.domain.model import ModelState
    from inferd.daemon.domain.request import Job
    from inferd.daemon.node.deployment import Deployment
    from inferd.daemon.node.resident import Resident
    from inferd.daemon.node.stream import Stream, StreamEvent

GIB = 1 << 30
LIMIT_S = 60.0  # no test waits longer for anything
SLOW = 100.0  # tokens per second: an answer of 1,000 tokens is still running when a test looks
ENDLESS = "fake:tokens=1000"


@dataclass
class House:
    """`node` and the words to use it."""

    node: Node
    ids: itertools.count[int] = field(default_factory=itertools.count)

    def request(
        self,
        said: str | None = "fake:tokens=3",
        /,
        model: str = "alpha",
        *,
        priority: Priority = Priority.NORMAL,
        tenant: str = "default",
        request_id: str | None = None,
        params: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Request:
        """What is said goes as token ids, one for each byte; with None the fields bring the prompt."""
        sampling = SamplingParams(**{"max_tokens": 0, "seed": 1, **(params or {})})
        if said is not None:
            fields["tokens"] = list(said.encode())
        return Request(request_id or f"r{next(self.ids)}", model, sampling, priority, tenant, **fields)

    def submit(self, said: str | None = "fake:tokens=3", /, model: str = "alpha", **fields: Any) -> Stream:
        return self.node.submit(self.request(said, model, **fields))

    def deployment(self, model: str = "alpha") -> Deployment:
        return self.node.fleet.get(model)

    def resident(self, model: str = "alpha") -> Resident:
        """The one that speaks for the model."""
        return self.deployment(model).speaker

    def state(self, model: str = "alpha") -> ModelState:
        return self.resident(model).model.state

    async def until(self, condition: Callable[[], bool]) -> None:
        """Look again after each change."""
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                await self.node.changes.wait()

    async def load(self, model: str = "alpha") -> Resident:
        async with asyncio.timeout(LIMIT_S):
            async for _ in self.node.wishes.load(model):
                pass
        return self.resident(model)

    async def answer(self, said: str = "fake:tokens=3", /, model: str = "alpha", **fields: Any) -> str:
        return text(await read(self.submit(said, model, **fields)))

    def told(self, *kinds: Kind) -> list[str]:
        """The messages of all events of these kinds."""
        return [event.message for event in self.node.events.after(0) if event.kind in kinds]

    async def close(self) -> None:
        """End everything; nothing may be left of it."""
        node = self.node
        async with asyncio.timeout(LIMIT_S):
            await node.drain(0.0)
        check_integrity(node.scheduler)
        assert node.ledger.reservations == {}
        assert len(node.jobs) == 0
        assert all(not lane.waiting and not lane.running for lane in node.scheduler.lanes.values())


def build(
    folder: Path, *, host_bytes: int = 64 * GIB, tokens_per_s: float = 0.0, gpus: int = 0, **sections: Any
) -> House:
    """`slots` of each model are 2; other sections of the config as given. `gpus` of 8 GiB each: gpu0 and so on."""
    models = Models(folders=(str(folder),), defaults=ModelOptions(**{"slots": 2, **sections.pop("options", {})}))
    prefill_tokens_per_s = sections.pop("prefill_tokens_per_s", 0.0)
    load_s = sections.pop("load_s", 0.0)
    fake = Fake(enabled=True, tokens_per_s=tokens_per_s, prefill_tokens_per_s=prefill_tokens_per_s, load_s=load_s)
    config = Config(models=models, fake=fake, **sections)
    ledger = Ledger()
    ledger.add_pool("host", host_bytes, 0)
    house = House(Node(config, Catalog([folder]), ledger, n_threads=1))
    for i in range(gpus):
        ledger.add_pool(f"gpu{i}", 8 * GIB, 0)
        house.node.fleet.gpus[f"gpu{i}"] = Gpu(8 * GIB)
    return house


async def failure(reading: Awaitable[Any]) -> InferdError:
    """What it ends with."""
    with pytest.raises(InferdError) as caught:
        await reading
    return caught.value


async def load_failure(house: House, model: str = "alpha") -> InferdError:
    """Why the model cannot be loaded."""
    return await failure(house.load(model))


async def read(stream: Stream) -> list[StreamEvent]:
    """Everything up to the end. Raises the InferdError that ended it."""
    events: list[StreamEvent] = []
    async with asyncio.timeout(LIMIT_S):
        while taken := await stream.take():
            events += taken
    return events


async def first_text(stream: Stream) -> list[StreamEvent]:
    """Read until the first token is there."""
    events: list[StreamEvent] = []
    async with asyncio.timeout(LIMIT_S):
        while not any(isinstance(event, Text) for event in events):
            events += await stream.take()
    return events


def text(events: list[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def tokens(events: list[StreamEvent]) -> list[int]:
    return [token for event in events if isinstance(event, Text) for token in event.tokens]


def finished(events: list[StreamEvent]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def what_the_fake_says(job: Job) -> list[int]:
    """The answer that a job must get, whatever happened on its way."""
    from inferd.backends.fake import _Run

    assert job.prompt is not None
    run = _Run(Submit(job.id, 1, list(job.prompt), len(job.prompt), job.request.params))
    said = []
    for _ in range(run.length):
        said.append(run.token())
        run.n_done += 1
    return said
