from __future__ import annotations

from inferd.protos import inferd_pb2 as pb
from inferd.tests.tui import samples
from inferd.tui import state
from inferd.tui.cells import text_of
from inferd.tui.lens import Lens
from inferd.tui.panels import models as panel
from inferd.tui.panels.models import Row
from inferd.tui.state import State
from inferd.tui.symbols import UNICODE

NOW = state.on_catalog(state.on_snapshot(State(), samples.snapshot(), 1.0), samples.catalog())


def row(**fields: object) -> Row:
    made = pb.ModelState(name="m", state="ready", slots=4, **fields)  # type: ignore[arg-type]
    return Row("m", made)


def test_the_catalog_fills_up_what_is_deployed() -> None:
    names = [r.name for r in sorted(panel.rows(NOW), key=panel.MODELS.order)]
    assert names == ["embed-e5", "llama3-70b-q4", "qwen2.5-7b-q4", "broken", "phi4-q4", "mistral-7b-q5", "tiny-cold"]
    assert next(r for r in panel.rows(NOW) if r.name == "qwen2.5-7b-q4").info is not None


def test_the_overview_has_those_in_use_wanted_or_failed() -> None:
    assert {r.name for r in panel.in_use(NOW)} == {r.name for r in panel.rows(NOW)} - {"broken", "tiny-cold"}


def test_copies_of_one_model_are_rows_with_keys_of_their_own() -> None:
    twins = pb.Snapshot(models=[pb.ModelState(name="m", state="ready"), pb.ModelState(name="m", state="loading")])
    found = panel.rows(state.on_snapshot(State(), twins, 1.0))
    assert [r.copy for r in found] == [0, 1]
    assert len({panel.MODELS.key(r) for r in found}) == 2


def test_a_load_shows_how_far_it_is() -> None:
    loading = Row("m", pb.ModelState(name="m", state="loading", load_progress=0.4))
    assert panel.state_of(loading, UNICODE) == ("◐ loading 40%", "accent")


def test_why_it_stays_or_when_it_goes() -> None:
    assert panel.idle_of(row(pinned=True), UNICODE)[0] == "pinned"
    assert panel.idle_of(row(leases=1), UNICODE)[0] == "leased"
    assert panel.idle_of(row(unload_in_s=291.0), UNICODE)[0] == "4m51s"
    assert panel.idle_of(row(running=1), UNICODE)[0] == "in use"
    assert panel.idle_of(row(), UNICODE)[0] == "stays"
    assert panel.idle_of(Row("m", None), UNICODE)[0] == "-"


def test_kv_in_bytes_and_share() -> None:
    assert panel.kv_of(row(kv_cells=100, kv_cells_used=40, kv_bytes=2**30), UNICODE)[0] == "1.0G 40%"
    assert panel.kv_of(row(kv_cells=100, kv_cells_used=40), UNICODE)[0] == "40%"
    assert panel.kv_of(row(), UNICODE)[0] == "-"


def test_a_fault_is_told_in_the_note_and_in_the_detail() -> None:
    broken = next(r for r in panel.rows(NOW) if r.name == "phi4-q4")
    assert "SIGABRT" in panel.note_of(broken, UNICODE)[0]
    assert any("SIGABRT" in text_of(line) for line in panel.detail(broken, 100))


def test_the_detail_of_a_loaded_model() -> None:
    qwen = next(r for r in panel.rows(NOW) if r.name == "qwen2.5-7b-q4")
    text = " ".join(text_of(line) for line in panel.detail(qwen, 70))
    for fact in ("qwen2 Q4_K_M", "7.6G parameters", "28 layers", "chat template", "weights 4.0G", "13,045 used"):
        assert fact in text


def test_every_column_sorts_rows_of_all_kinds() -> None:
    rows = [*panel.rows(NOW), Row("bare", None), Row("new", pb.ModelState(name="new"))]
    for column in panel.MODELS.columns:
        assert len(Lens(column.key, True).look(rows, panel.MODELS, UNICODE)) == len(rows)


def test_a_plan_says_who_would_make_way_and_who_stays() -> None:
    text = "\n".join(text_of(line) for line in panel.plan_lines(samples.plan(), 60))
    assert "qwen2.5-7b-q4 would make way on gpu0, in about 1.4s" in text
    assert "gpu0: needs 6.0G, 5.0G free" in text
    assert "llama3-70b-q4 holds 34.0G, stays: pinned" in text


def test_a_refusal_says_what_would_make_it_fit() -> None:
    plan = pb.PlanLoadResponse(outcome="refused", message="it needs 9 GiB", change="slots = 2", notes=["a note"])
    lines = panel.plan_lines(plan, 60)
    assert lines[0] == (("it does not fit", "fail"),)
    assert [text_of(line) for line in lines[1:]] == ["it needs 9 GiB", "would fit with: slots = 2", "a note"]
