from __future__ import annotations

from inferd.protos import inferd_pb2 as pb
from inferd.tests.tui import samples
from inferd.tui import state
from inferd.tui.cells import text_of
from inferd.tui.columns import table
from inferd.tui.panels import clients as panel
from inferd.tui.state import State
from inferd.tui.symbols import UNICODE

NOW = state.on_snapshot(State(), samples.snapshot(), 1.0)


def test_who_has_most_to_do_comes_first() -> None:
    assert [row.tenant for row in sorted(panel.rows(NOW), key=panel.CLIENTS.order)] == ["ide", "web", "nightly"]
    assert panel.rows(State()) == []


def test_a_row_has_rates_tokens_and_stalls() -> None:
    lines = [text_of(line).split() for line in table(panel.CLIENTS, panel.rows(NOW), 150, UNICODE)]
    ide = dict(zip([c.key for c in panel.CLIENTS.columns], lines[1], strict=True))
    assert (ide["running"], ide["out"], ide["in"], ide["prompt"]) == ("2", "48.1", "1200", "410k")
    assert (ide["generation"], ide["finished"], ide["idle"]) == ("88,000", "312", "1s")


def test_a_stalled_client_is_told_before_those_that_were_cut() -> None:
    assert panel.stalls_of(pb.TenantState(stalled=1, stalls_total=2), UNICODE) == ("! 1 now", "warn")
    assert panel.stalls_of(pb.TenantState(stalls_total=2), UNICODE) == ("2 cut", "")
    assert panel.stalls_of(pb.TenantState(), UNICODE) == ("-", "dim")


def test_every_column_sorts() -> None:
    for column in panel.CLIENTS.columns:
        assert len(sorted(panel.rows(NOW), key=column.sort)) == 3
