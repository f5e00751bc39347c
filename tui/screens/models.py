"""Models: what is loaded and what could be, where, for how many bytes; load, unload, pin."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import work

from ...protos.errors import InferdError
from .. import bindings
from ..panels import models
from ..widgets.canvas import Lines
from ..widgets.dialogs import Confirm
from .page import TablePage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.binding import BindingType
    from textual.widget import Widget

    from ..columns import Sheet
    from ..state import State
    from ..widgets.rows import Rows


class Models(TablePage[models.Row]):
    number = 2
    what = "Models"
    empty = "no models; start the daemon with --models DIR"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings.MODELS, replace(bindings.COPY, description="copy name")]

    def sheet(self) -> Sheet[models.Row]:
        return models.MODELS

    def rows_of(self, state: State) -> Sequence[models.Row]:
        return models.rows(state)

    def body(self) -> Iterable[Widget]:
        yield from self.main_table()
        yield Lines(id="why")

    def on_screen_resume(self) -> None:
        self.monitor.refresh_catalog()

    def show_body(self, state: State) -> None:
        super().show_body(state)
        self.show_detail()

    def show_detail(self) -> None:
        box, current = self.query_one("#why", Lines), self.table.current
        box.show([] if current is None else models.detail(current, max(20, box.size.width)))

    def on_rows_moved(self, event: Rows.Moved) -> None:
        self.show_detail()

    def copied(self, row: models.Row) -> str:
        return row.name

    @work(group="ask")
    async def action_load(self) -> None:
        """Says what it would do first."""
        if (current := self.table.current) is None:
            return
        try:
            plan = await self.monitor.operator.plan(current.name)
        except InferdError as error:
            return self.monitor.complain(error)
        if plan.outcome == "loaded":
            return self.monitor.say(f"{current.name} is loaded already")
        if self.app.screen is not self:  # it took a while, and the user is elsewhere
            return self.monitor.say(f"the plan for {current.name} is there; press the key again")
        question = Confirm(f"Load {current.name}?", lambda width: models.plan_lines(plan, width), "load it")
        if await self.app.push_screen_wait(question):
            self.monitor.act(lambda: self.monitor.operator.load(current.name), f"loading {current.name}")
        return None

    def action_unload(self) -> None:
        self._unload(force=False)

    def action_evict(self) -> None:
        self._unload(force=True)

    @work(group="ask")
    async def _unload(self, *, force: bool) -> None:
        current = self.table.current
        if current is None or current.live is None:
            return
        name = current.name
        n_running = sum(row.live.running for row in self.table.rows if row.name == name and row.live is not None)
        what = (
            f"Cut off {n_running} running and unload {name} now?"
            if force
            else f"Unload {name} after {n_running} running?"
        )
        if await self.app.push_screen_wait(Confirm(what, yes="unload it")):
            self.monitor.act(lambda: self.monitor.operator.unload(name, force=force), f"unloading {name}")

    def action_pin(self) -> None:
        if (current := self.table.current) is not None:
            pinned = current.live is not None and current.live.pinned
            self.monitor.act(lambda: self.monitor.operator.pin(current.name, not pinned))
