"""Models from the hub: who asks for what, in which order it is fetched, and what becomes of it.

A pull lives as long as somebody watches it. Who asks for the same joins; what two of them have in common is fetched by
one after the other. The network is known only to the process of each pull.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING

import msgspec

from ...backends import kinds
from ..domain.errors import Code, InferdError
from ..domain.event import Kind, Severity
from ..domain.pull import Checking, Fetch, Fetched, Look, PullState
from ..policy.offer import Room, choose
from ..system.catalog import DEMO, as_name
from ..system.fetcher import Fetcher
from ..system.landing import Landing
from ..system.settings import pull_folder
from .changes import Changes
from .pull import Pull

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Mapping

    from ..domain.pull import PullOrder, PullProgress
    from ..policy.offer import Choice
    from ..system.catalog import Entry
    from .node import Node

log = logging.getLogger(__name__)

MAX_LIVE = 64  # that run or wait
MAX_TOKEN_BYTES = 4096


class Pulls:
    """Owner of all pulls. Mutations are plain; what waits is each pull's own task."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._live: dict[PullOrder, Pull] = {}
        self._ending: set[Pull] = set()  # that nobody watches any more
        self._turns = asyncio.Semaphore(node.config.hub.max_pulls)
        self._ended = Changes()

    async def pull(self, order: PullOrder) -> AsyncGenerator[PullProgress, None]:
        """How it goes on, until the model is there. Raises InferdError. Ends with the last one who watches it."""
        self._node.refuse_when_closing()
        if order.name:
            _check_name(order.name)
        pull = self._join(order)
        told = None
        try:
            while True:
                change = pull.changes.next()
                if pull.progress != told:
                    told = pull.progress
                    yield told
                if pull.over:
                    break
                await change
            if pull.error is not None:
                raise pull.error
        finally:
            self._leave(pull)

    async def close(self) -> None:
        """End all of them; what they have fetched stays for the next daemon."""
        tasks = [pull.task for pull in self._all() if pull.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _join(self, order: PullOrder) -> Pull:
        pull = self._live.get(order)
        if pull is None:
            if len(self._live) >= MAX_LIVE:
                text = f"{MAX_LIVE} pulls are under way or wait, which is the most"
                raise InferdError(Code.QUEUE_FULL, text, retry_after_ms=5000, highest=MAX_LIVE)
            self._live[order] = pull = Pull(order)
            pull.task = asyncio.create_task(self._run(pull), name=f"pull {order.repo}")
        pull.watchers += 1
        return pull

    def _leave(self, pull: Pull) -> None:
        pull.watchers -= 1
        if not pull.watchers and not pull.over:
            assert pull.task is not None
            pull.task.cancel()
            self._forget(pull)  # whoever comes now begins anew
            self._ending.add(pull)

    def _forget(self, pull: Pull) -> None:
        if self._live.get(pull.order) is pull:
            del self._live[pull.order]

    async def _run(self, pull: Pull) -> None:
        error: InferdError | None = InferdError(Code.SHUTTING_DOWN, "the daemon is shutting down", retry_after_ms=5000)
        try:
            async with self._turns:
                await self._get(pull)
            error = None
        except InferdError as failure:
            error = failure
            message = f"{pull.order.repo} could not be pulled: {failure.message}"
            self._node.events.note(Severity.WARNING, Kind.PULL_FAILED, message)
        except Exception:
            log.exception("pulling %s failed", pull.order.repo)
            error = InferdError(Code.INTERNAL, "the pull failed; the daemon's log says why")
        finally:
            if error is not None and pull.held and not self._node.config.hub.partial_ttl_s:
                self._landing().drop(pull.held)
            pull.held = frozenset()
            self._forget(pull)
            self._ending.discard(pull)
            pull.end(error)
            self._ended.notify()

    async def _get(self, pull: Pull) -> None:
        """From the question what there is to the model in its place."""
        order, node, landing = pull.order, self._node, self._landing()
        in_use = {name for other in self._all() for name in other.held}
        await asyncio.to_thread(landing.open, self._node.config.hub.partial_ttl_s, in_use)
        token = await asyncio.to_thread(_token, self._node.config.hub.token_file)
        async with Fetcher(landing.unfinished) as fetcher:
            listing = await fetcher.look(Look(self._node.config.hub.endpoint, token, order.repo, order.revision))
            choice = _checked(choose(listing.files, order, await self._room(landing)), order)
            name = _check_name(order.name or as_name(choice.title))
            pull.chose(choice)
            await self._claim(pull, frozenset({f"{name}.new", *(file.digest for file, _ in choice.files)}))
            entries = await asyncio.to_thread(node.catalog.scan)
            sha256s = await asyncio.to_thread(landing.holds, name, choice.files, node.fleet.tiers.digests)
            if sha256s is not None and name in entries:
                return self._ready(pull, name, choice, sha256s)
            self._check_new(name, entries)
            sha256s = await self._fetch(pull, fetcher, choice, landing)
        await _whole(self._land(pull, landing, name, choice, sha256s, listing.commit))
        return None

    async def _fetch(self, pull: Pull, fetcher: Fetcher, choice: Choice, landing: Landing) -> list[str]:
        """The SHA-256 of each file of the choice."""
        files = {file.digest: file for file, _ in choice.files}  # what is there twice comes once
        twice_bytes = choice.n_bytes - sum(file.n_bytes for file in files.values())
        here_bytes = await asyncio.to_thread(landing.here_bytes, files)
        pull.move(PullState.FETCHING, n_bytes=min(here_bytes + twice_bytes, choice.n_bytes))
        await self._check_room(pull, landing)
        wanted = Fetch(str(landing.unfinished), tuple(files.values()), self._node.config.models.pull_min_free_bytes)
        async with contextlib.aclosing(fetcher.fetch(wanted)) as answers:
            async for answer in answers:
                if isinstance(answer, Fetched):
                    pull.fetched(min(answer.n_bytes + twice_bytes, choice.n_bytes))
                elif isinstance(answer, Checking):
                    pull.move(PullState.VERIFYING, n_bytes=choice.n_bytes)
                else:
                    by_digest = dict(zip(files, answer.sha256, strict=True))
                    return [by_digest[file.digest] for file, _ in choice.files]
        raise AssertionError("it ends with an answer or an error")

    def _record(self, path: str, sha256: str) -> None:
        """What was read to its end while it was verified; from now on the file should be that. Waits for the disk."""
        fleet = self._node.fleet
        fleet.tiers.digests.record(path, sha256)
        fleet.imports.record(path, sha256)

    async def _land(
        self, pull: Pull, landing: Landing, name: str, choice: Choice, sha256s: list[str], commit: str
    ) -> None:
        node, repo = self._node, pull.order.repo
        await asyncio.to_thread(landing.place, name, choice.files, sha256s, self._record)
        if name not in await asyncio.to_thread(node.catalog.scan):
            raise InferdError(Code.INTERNAL, f"{name} is in its folder, and yet not among the models")
        message = f"{name} was pulled from {repo} at {commit[:12]}: {choice.main}, {choice.n_bytes:,} bytes"
        log.info("%s", message)
        node.events.note(Severity.INFO, Kind.MODEL_PULLED, message, model=name)
        node.changes.notify()
        self._ready(pull, name, choice, sha256s)

    def _ready(self, pull: Pull, name: str, choice: Choice, sha256s: list[str]) -> None:
        largest = max(range(len(sha256s)), key=lambda i: (choice.files[i][0].n_bytes, -i))
        pull.move(PullState.READY, n_bytes=choice.n_bytes, model=name, sha256=sha256s[largest])

    async def _claim(self, pull: Pull, names: frozenset[str]) -> None:
        """Wait until no other pull has one of these files."""
        while any(names & other.held for other in self._all()):
            await self._ended.wait()
        pull.held = names

    def _all(self) -> list[Pull]:
        return [*self._live.values(), *self._ending]

    async def _room(self, landing: Landing) -> Room:
        """What a model may take, as it is now."""
        free_bytes = await asyncio.to_thread(landing.free_bytes)
        memory = sum(max(0, pool.usable_bytes) for pool in self._node.ledger.pools.values())
        return Room(max(0, free_bytes - self._node.config.models.pull_min_free_bytes), memory)

    async def _check_room(self, pull: Pull, landing: Landing) -> None:
        """All that is under way counts as if it were here. Raises InferdError."""
        disk_bytes = (await self._room(landing)).disk_bytes
        used_bytes = await asyncio.to_thread(landing.n_bytes)
        others_bytes = sum(other.missing_bytes for other in self._all() if other.held and other is not pull)
        needed_bytes, most = pull.missing_bytes, self._node.config.models.pull_max_bytes
        free_bytes = max(0, disk_bytes - others_bytes)
        if needed_bytes > free_bytes:
            text = f"{pull.progress.file} needs {needed_bytes:,} bytes more, and the disk has {free_bytes:,} for models"
            raise InferdError(Code.NO_ROOM, text, needed_bytes=needed_bytes, free_bytes=free_bytes)
        free_bytes = max(0, (most or 0) - used_bytes - others_bytes)
        if most is not None and needed_bytes > free_bytes:
            text = f"{pull.progress.file} needs {needed_bytes:,} bytes more, but `pull_max_bytes` leaves {free_bytes:,}"
            raise InferdError(Code.NO_ROOM, text, needed_bytes=needed_bytes, free_bytes=free_bytes, highest=most)

    def _check_new(self, name: str, entries: Mapping[str, Entry]) -> None:
        if name in entries or self._node.aliases.real(name) != name:
            text = f"there is another model or an alias called {name!r}; give another name"
            raise InferdError(Code.INVALID, text, field="name")

    def _landing(self) -> Landing:
        return Landing(pull_folder(self._node.config))


def _check_name(name: str) -> str:
    """What requests will call it, and what its folder is called. Raises InferdError."""
    # Models in folders with such names are not called after them.
    special = name in (DEMO, "onnx") or name.isdecimal() or kinds.HASH.fullmatch(name) is not None
    if name != as_name(name) or special:
        text = "name must be lower-case letters, digits and ._-, at most 128, no number and none that has a meaning"
        raise InferdError(Code.INVALID, f"{text}, not {name[:128]!r}", field="name", highest=128)
    return name


def _checked(choice: Choice, order: PullOrder) -> Choice:
    """With the digest that the client wants for its file. Raises InferdError where one could not be right."""
    named = next((file for file, _ in choice.files if file.name == order.file), choice.files[0][0])
    if order.sha256:
        if len(named.digest) == len(order.sha256) and named.digest != order.sha256:
            text = f"sha256: {named.name} has another one on the hub: {named.digest}"
            raise InferdError(Code.INVALID, text, field="sha256")
        wanted = msgspec.structs.replace(named, digest=order.sha256)
        choice = choice._replace(files=tuple((wanted if file is named else file, at) for file, at in choice.files))
    for file, _ in choice.files:
        if not file.digest:
            raise InferdError(Code.PULL_FAILED, f"{file.name}: the hub tells no digest, so nothing could be verified")
    return choice


def _token(path: str) -> str:
    """Raises InferdError, without the path: that is the operator's."""
    if not path:
        return ""
    try:
        with open(os.path.expanduser(path), "rb") as file:
            token = file.read(MAX_TOKEN_BYTES).decode("ascii").strip()
    except (OSError, ValueError) as error:
        log.warning("[hub] token_file cannot be read: %s", error)
        raise InferdError(Code.PULL_FAILED, "the file with the hub's token cannot be read; the log says why") from None
    if not token.isprintable() or " " in token:  # it becomes a line of a header
        raise InferdError(Code.PULL_FAILED, "the file with the hub's token holds something else")
    return token


async def _whole(work: Coroutine[None, None, None]) -> None:
    """To its end, whoever leaves: it is short, and half of it would be worse."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()
