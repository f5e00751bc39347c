"""What may be done to requests, wherever they are shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from ...protos import inferd_pb2 as pb
from .. import bindings
from ..panels import why
from ..widgets.dialogs import Choose
from .page import TablePage
from .request import CLASSES, RequestPage

if TYPE_CHECKING:
    from textual.binding import BindingType

    from ..widgets.rows import Rows


DISPLACED_S = 1.0


class RequestsPage(TablePage[pb.RequestState]):
    BINDINGS: ClassVar[list[BindingType]] = [*bindings.REQUESTS]

    def on_mount(self) -> None:
        self.table.marks = self.monitor.marks.__contains__

    def targets(self) -> list[str]:
        """Those that are marked and still there, else the one under the cursor."""
        marked = [row.id for row in self.table.rows if row.id in self.monitor.marks]
        current = self.table.current
        return marked or ([current.id] if current is not None else [])

    def action_mark(self) -> None:
        if (current := self.table.current) is not None:
            self.monitor.marks ^= {current.id}
            self.table.action_move(1)
            self.show_heading(*self.counts)

    def heading_extra(self) -> list[tuple[str, str]]:
        n = sum(row.id in self.monitor.marks for row in self.table.rows)
        return [(f"   {n} marked", "accent")] if n else []

    def action_cancel(self) -> None:
        """Asks also when the row that was aimed at may have left under the finger."""
        just_moved = time.monotonic() - self.table.displaced_s < DISPLACED_S
        targets = self.targets()
        elsewhere = bool(self.monitor.marks) and not self.monitor.marks & set(targets)  # marks that are not seen here
        if targets:
            self.monitor.cancel(targets, ask=just_moved or elsewhere)

    def action_priority(self) -> None:
        targets = self.targets()
        if not targets:
            return
        current = self.monitor.shown.request(targets[0])
        what = targets[0] if len(targets) == 1 else f"{len(targets)} requests"
        question = Choose(f"Which class should {what} be in?", CLASSES, current.priority if current is not None else "")
        self.app.push_screen(question, lambda chosen: self.monitor.set_priority(targets, chosen or ""))

    def action_copy_command(self) -> None:
        if (current := self.table.current) is not None:
            self.monitor.copy(why.as_command(current, self.monitor.address))

    def action_detail(self) -> None:
        if (current := self.table.current) is not None:
            self.app.push_screen(RequestPage(current.id))

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        self.action_detail()
