"""Clients: who asks for how much, and who is too slow to take it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ...protos import inferd_pb2 as pb
from .. import bindings
from ..panels import clients
from .page import TablePage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.binding import BindingType
    from textual.widget import Widget

    from ..columns import Sheet
    from ..state import State
    from ..widgets.rows import Rows


class Clients(TablePage[pb.TenantState]):
    number = 5
    what = "Tenants"
    empty = "nobody has asked for anything"
    BINDINGS: ClassVar[list[BindingType]] = [bindings.ENTER]

    def sheet(self) -> Sheet[pb.TenantState]:
        return clients.CLIENTS

    def rows_of(self, state: State) -> Sequence[pb.TenantState]:
        return clients.rows(state)

    def body(self) -> Iterable[Widget]:
        yield from self.main_table()

    def action_detail(self) -> None:
        """Its requests, on the overview."""
        if (current := self.table.current) is not None:
            self.monitor.show_requests_of(current.tenant)

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        self.action_detail()
