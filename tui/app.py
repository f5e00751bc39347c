"""The monitor: owns the state and the way to the daemon, and shows one screen at a time."""

from __future__ import annotations

import asyncio
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.app import App, SystemCommand

from ..protos.aio import AsyncClient
from ..protos.errors import InferdError
from . import bindings, state, words
from .actions import Operator
from .explanations import Explanations
from .feed import Feed
from .panels import models, requests
from .screens.base import Looking
from .screens.clients import Clients
from .screens.devices import Devices
from .screens.events import Events
from .screens.guide import guide
from .screens.models import Models
from .screens.overview import Overview
from .screens.page import Page
from .screens.request import RequestPage
from .screens.waiting import Waiting
from .settings import PACES_MS, THEMES, Settings
from .state import Link, State
from .symbols import ASCII, UNICODE
from .themes import OURS
from .widgets.dialogs import Confirm

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from textual.binding import Binding, BindingType
    from textual.dom import DOMNode
    from textual.screen import Screen

    from ..protos import inferd_pb2 as pb

BLURRED_MS = 2000  # the least between two pictures while nobody types here
CONNECT_TIMEOUT_S = 0.5
TYPED = frozenset(binding.action.partition("(")[0] for binding in bindings.EVERYWHERE)  # by keys that are letters
QUIT_S = 1.0  # for calls that have not been answered
BUILD_S = 0.3  # between two screens that are made in advance
EVENTS_S = 0.1  # events of so long are shown at once


class Monitor(App[None]):
    CSS_PATH = Path(__file__).with_name("theme.tcss")  # also for who inherits elsewhere
    TITLE = "inferd"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings.EVERYWHERE]
    SCREENS: ClassVar[dict[str, Any]] = dict(
        zip(bindings.NAMES, (Overview, Waiting, Models, Devices, Events, Clients), strict=True)
    )

    def __init__(
        self, address: str | None, settings: Settings | None = None, *, settings_path: str = "top.toml"
    ) -> None:
        super().__init__()
        self.settings = settings or Settings()
        self.settings_path = settings_path
        self.symbols = ASCII if self.settings.ascii else UNICODE
        self.client = AsyncClient(address, connect_timeout_s=CONNECT_TIMEOUT_S)
        self.address = self.client.address
        self.operator = Operator(self.client)
        self.explanations = Explanations(self.operator.explain, self.refresh_page)
        self.feed = Feed(self.client, self, self.settings.interval_ms)
        self.state = State()
        self.frozen: State | None = None
        self.marks: set[str] = set()
        self.interval_ms = self.settings.interval_ms
        self.news = False  # something is to be shown
        self._heard: list[pb.Event] = []  # since they were shown last
        self.set_class(self.settings.ascii, "-ascii")
        self.animation_level = "none"  # every frame is bytes over ssh
        for theme in OURS:
            self.register_theme(theme)
        self.theme = self.settings.theme or THEMES[0]
        self.set_keymap(dict(self.settings.keys))

    async def on_mount(self) -> None:
        await self.push_screen(bindings.NAMES[0])
        if not self.is_headless:
            self._end_well()
        self.run_worker(self.feed.run(), name="feed", group="feed")
        self.set_interval(1.0, self._tick)

    def _end_well(self) -> None:
        """Who ends the process gets the terminal back as it was; of one that is gone nothing more is read."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, partial(self.exit, return_code=128 + number))

    async def action_quit(self) -> None:
        """What was asked for in the last moment is still sent."""
        acting = [worker.wait() for worker in self.workers if worker.group == "act" and not worker.is_finished]
        if acting:
            await asyncio.wait([asyncio.ensure_future(one) for one in acting], timeout=QUIT_S)
        self.exit()

    async def on_unmount(self) -> None:
        self.explanations.close()
        await self.client.close()

    # what the daemon says

    def heard_snapshot(self, snapshot: pb.Snapshot) -> None:
        if self.state.snapshot is None:
            self.run_worker(self._build_screens(), name="build", group="build", exit_on_error=False)
        self.state = state.on_snapshot(self.state, snapshot, self.now_s())
        if self.marks:
            self.marks &= {request.id for request in snapshot.requests}
        self.refresh_page()

    def heard_event(self, event: pb.Event) -> None:
        """They come one by one, and thousands at first."""
        self._heard.append(event)
        if len(self._heard) == 1:
            self.set_timer(EVENTS_S, self._take_events)

    def _take_events(self) -> None:
        self.state = state.on_events(self.state, self._heard)
        self._heard = []
        self.refresh_page()

    def heard_greeting(self, me: pb.WhoAmIResponse) -> None:
        self.state = state.on_greeting(self.state, me.role, me.tenant)
        self._show_keys()

    def heard_catalog(self, models: list[pb.ModelInfo]) -> None:
        self.state = state.on_catalog(self.state, models)
        self.refresh_page()

    def heard_lost(self, reason: str, retry_at_s: float) -> None:
        self.state = state.on_lost(self.state, reason, retry_at_s)
        self.refresh_page()

    async def _build_screens(self) -> None:
        """Those that nobody has seen yet, one by one: the first key that leads to one must not wait for that."""
        for name in bindings.NAMES:
            await asyncio.sleep(BUILD_S)
            try:
                _, built = self._get_screen(name)
            except KeyError:  # the app ends, and its screens are gone
                return
            await built

    # what is shown

    @property
    def shown(self) -> State:
        return self.frozen or self.state

    def now_s(self) -> float:
        return time.monotonic()

    def pace_text(self) -> str:
        """How new the picture is, for the title."""
        if self.frozen is not None:
            return f"frozen {words.span(self.frozen.age_s(self.now_s()))}"
        sign = self.symbols.up if self.state.link is Link.LIVE else self.symbols.fail
        mode = "  read-only" if self.may_only_look else ""
        return f"{self.interval_ms / 1e3:g}s {sign} {self.state.link.value}{mode}"

    def refresh_page(self) -> None:
        """Soon; what comes until then is shown with it."""
        if not self.news and self.is_running:
            self.news = True
            self.call_later(self._show)

    def _show(self) -> None:
        self.news = False
        if isinstance(screen := self.screen, Looking):
            screen.show()

    def _show_keys(self) -> None:
        if isinstance(screen := self.screen, Looking):
            screen.refresh_bindings()
            screen.show_keys()

    def _tick(self) -> None:
        """Ages grow although nobody says anything."""
        if self.state.link is not Link.LIVE or self.frozen is not None:
            self.refresh_page()

    def watch_app_focus(self, focus: bool) -> None:
        self.feed.pace(self.interval_ms if focus else max(self.interval_ms, BLURRED_MS))

    def get_key_display(self, binding: Binding) -> str:
        shown = super().get_key_display(binding)
        return binding.key if self.settings.ascii and not shown.isascii() else shown

    # where to look

    async def action_page(self, number: int) -> None:
        while len(self.screen_stack) > 2:
            await self.screen.dismiss(None)
        if self.screen is not self.get_screen(bindings.NAMES[number - 1]):
            await self.switch_screen(bindings.NAMES[number - 1])

    def action_go(self) -> None:
        if isinstance(self.screen, Page):
            self.screen.ask_where()

    @work(group="ask")
    async def show_requests_of(self, tenant: str) -> None:
        await self.action_page(1)
        if isinstance(self.screen, Overview):
            self.screen.show_only("tenant", tenant)

    @work(group="ask")
    async def go_to(self, name: str) -> None:
        """To a request by its id or how that begins, else to a model."""
        before = self.screen
        known = [request.id for request in requests.live(self.shown)]
        found = name if name in known else next((one for one in known if one.startswith(name)), None)
        if found is not None:
            await self.push_screen(RequestPage(found))
        elif any(row.name == name for row in models.rows(self.shown)):
            await self.action_page(3)
            if isinstance(self.screen, Models):
                self.screen.show()
                self.screen.table.select(f"{name}\0{0}")
        elif await self._was_here(name):
            if self.screen is before:  # it took a while
                await self.push_screen(RequestPage(name))
        else:
            self.notify(f"there is no request and no model {name}", severity="warning", markup=False)

    async def _was_here(self, request_id: str) -> bool:
        """Ended requests are remembered by the daemon for a while."""
        try:
            return bool(await self.operator.explain(request_id))
        except InferdError:
            return False

    def action_help(self) -> None:
        self.push_screen(guide(self, self.screen, self.settings_path))

    def action_freeze(self) -> None:
        self.frozen = None if self.frozen is not None else self.state
        self.refresh_page()

    def action_pace(self, step: int) -> None:
        at = min(max(0, PACES_MS.index(self.interval_ms) + step), len(PACES_MS) - 1)
        self.interval_ms = PACES_MS[at]
        self.feed.pace(self.interval_ms)
        self.refresh_page()

    def action_theme(self) -> None:
        at = THEMES.index(self.theme) if self.theme in THEMES else -1
        self.theme = THEMES[(at + 1) % len(THEMES)]
        self.notify(f"theme {self.theme}", timeout=2, markup=False)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: every action that works here, by its words."""
        seen: set[str] = set()
        for active in screen.active_bindings.values():
            binding = active.binding
            if active.node in (self, screen) and binding.id and active.enabled and binding.id not in seen:
                seen.add(binding.id)
                action, node = binding.action, active.node
                yield SystemCommand(
                    binding.description,
                    f"key {self.get_key_display(binding)}",
                    lambda action=action, node=node: self._run(action, node),
                )

    def _run(self, action: str, node: DOMNode) -> None:
        self.run_worker(self.run_action(action, default_namespace=node), group="palette")

    # what to do

    @property
    def may_only_look(self) -> bool:
        return self.settings.read_only or self.state.role == "viewer"

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        stack = self.screen_stack
        typing = bool(stack) and isinstance(screen := stack[-1], Page) and screen.is_typing
        if (action in bindings.ACTING and self.may_only_look) or (typing and action in TYPED):
            return False
        return super().check_action(action, parameters)

    @work(group="ask")
    async def cancel(self, request_ids: Sequence[str], *, ask: bool = False) -> None:
        """Asks once where something runs, where it is more than one, and where it is told to."""
        running = [name for name in request_ids if (r := self.shown.request(name)) is not None and r.state == "running"]
        what = request_ids[0] if len(request_ids) == 1 else f"{len(request_ids)} requests"
        lost = f" {len(running)} of them run." if len(request_ids) > 1 else ""
        needs_word = ask or bool(running) or len(request_ids) > 1
        if not needs_word or await self.push_screen_wait(Confirm(f"Cancel {what}?{lost}", yes="cancel it")):
            self.marks -= set(request_ids)
            self.act(lambda: self.operator.cancel(request_ids))

    def set_priority(self, request_ids: Sequence[str], priority: str) -> None:
        if priority:
            self.act(lambda: self.operator.set_priority(request_ids, priority))

    @work(group="ask")
    async def action_drain(self) -> None:
        draining = self.state.snapshot is not None and self.state.snapshot.state == "draining"
        question = (
            "Take new requests in again?" if draining else "Drain: refuse new requests and finish those that are here?"
        )
        if await self.push_screen_wait(Confirm(question)):
            self.act(lambda: self.operator.drain(not draining))

    def act(self, call: Callable[[], Awaitable[str]], beginning: str = "") -> None:
        """Have something done, and say what came of it."""
        if beginning:
            self.say(beginning)
        self.run_worker(self._act(call), group="act")

    async def _act(self, call: Callable[[], Awaitable[str]]) -> None:
        try:
            self.say(await call())
        except InferdError as error:
            self.complain(error)

    def say(self, text: str) -> None:
        self.notify(words.plain(text), timeout=4, markup=False)

    def complain(self, error: InferdError) -> None:
        self.notify(words.plain(error.message or error.code), severity="error", timeout=8, markup=False)

    def copy(self, text: str) -> None:
        """To the terminal's clipboard, also over ssh (OSC 52); what is selected goes before what the cursor is on."""
        lines = (self.screen.get_selected_text() or text).splitlines()
        chosen = "\n".join(words.plain(line) for line in lines)
        self.copy_to_clipboard(chosen)
        first = chosen.splitlines()[0] if chosen else ""
        self.say(f"copied: {first[:60]}")

    @work(group="catalog", exclusive=True)
    async def refresh_catalog(self) -> None:
        try:
            self.heard_catalog(await self.operator.catalog())
        except InferdError:
            return  # the banner says what is wrong
