"""One model's place on the machine: reserved before anything is spawned, given back when it is surely gone."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from inferd.backends.exit import Exit
from inferd.backends.messages import LoadFailed
from inferd.daemon.domain.errors import Code, InferdError
from inferd.daemon.domain.model import ModelState
from inferd.daemon.node.plans import make_plan
from inferd.daemon.node.resident import BACK_OFF_S, SPARE_BYTES, Resident
from inferd.daemon.policy import corrections
from inferd.daemon.policy.corrections import Corrections
from inferd.daemon.policy.ledger import Ledger, Shortfall
from inferd.daemon.system.catalog import Catalog
from inferd.daemon.system.workgroups import SPARE_PIDS, Group, Groups
from inferd.tests.daemon.node.house import GIB, build

FAILED = Exit(1, False, ("last words",))
ENDED = Exit(0, True, ())
KILLED = Exit(-9, False, ())


@pytest.fixture
def ledger() -> Ledger:
    it = Ledger()
    it.add_pool("host", GIB, 0)
    return it


@pytest.fixture
def resident(folder: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Resident:
    """One whose process cannot be made: its end is played by the test."""
    monkeypatch.setattr(sys, "executable", "/no/such/program")
    entry = Catalog([folder]).scan()["alpha"]
    assert entry.facts is not None
    plan = make_plan("alpha", entry.facts, build(folder).node.config, 1)
    return Resident("alpha", "alpha", entry.facts, plan, 60.0, ledger)


async def begin(it: Resident) -> None:
    """Begin a load and see its process fail to come into the world."""
    it.load(5.0, lambda _: None, lambda: None, lambda _: None)
    assert it._starting is not None
    await it._starting


async def test_bytes_are_held_from_before_the_birth_until_after_the_death(resident: Resident, ledger: Ledger) -> None:
    resident.load(5.0, lambda _: None, lambda: None, lambda _: None)
    assert ledger.booked_bytes("host") == resident.model.booked_bytes == resident.footprint.bytes_on["host"]
    assert (resident.model.state, resident.model.pid) == (ModelState.LOADING, None)
    assert resident._starting is not None
    await resident._starting
    assert ledger.booked_bytes("host") > 0
    resident.reaped(FAILED, 6.0)
    assert (ledger.booked_bytes("host"), resident.model.booked_bytes) == (0, 0)


async def test_without_room_nothing_begins(resident: Resident, ledger: Ledger) -> None:
    ledger.observe("host", GIB)
    with pytest.raises(Shortfall):
        resident.load(5.0, lambda _: None, lambda: None, lambda _: None)
    assert (resident.model.state, ledger.reservations) == (ModelState.COLD, {})


async def test_each_failure_in_a_row_is_forgiven_later(resident: Resident) -> None:
    expected = [*BACK_OFF_S, BACK_OFF_S[-1]]
    for n, back_off_s in enumerate(expected, start=1):
        await begin(resident)
        assert resident.reaped(FAILED, 100.0) == back_off_s
        assert (resident.model.failures, resident.model.retry_at_s) == (n, 100.0 + back_off_s)
        resident.model.move(ModelState.COLD)


async def test_a_token_in_between_forgives_all(resident: Resident) -> None:
    for produced, back_off_s, failures in ((False, 1.0, 1), (True, 0.0, 0), (False, 1.0, 1)):
        await begin(resident)
        resident.model.produced = produced
        assert resident.reaped(FAILED, 100.0) == back_off_s
        assert resident.model.failures == failures
        resident.model.move(ModelState.COLD)


async def test_an_end_while_draining_is_no_failure(resident: Resident) -> None:
    await begin(resident)
    resident.model.move(ModelState.DRAINING)
    assert resident.reaped(ENDED, 6.0) == 0.0
    assert (resident.model.state, resident.model.failures, resident.model.error) == (ModelState.COLD, 0, "")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("corrupt", Code.MODEL_CORRUPT),
        ("unsupported", Code.UNSUPPORTED),
        ("sandbox", Code.NO_SANDBOX),
        ("memory", Code.MODEL_FAILED),
    ],
)
async def test_what_the_worker_says_of_its_failure_is_what_clients_hear(
    resident: Resident, said: str, code: Code
) -> None:
    await begin(resident)
    resident.retried = "it has been tried with less"
    resident.note_load_failure(msgspec.convert(["load_failed", said, "it is so"], LoadFailed))
    resident.reaped(ENDED, 100.0)
    refusal = resident.refusal(100.25)
    assert (refusal.code, refusal.message, refusal.retry_after_ms) == (code, "alpha: it is so", 750)
    resident.model.move(ModelState.COLD)
    await begin(resident)
    assert isinstance(resident.load_error, InferdError)
    assert resident.load_error.code is Code.MODEL_FAILED  # of this load, not of the one before
    resident.reaped(FAILED, 101.0)


class Allotted(Groups):
    """Groups that are mere folders."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), "")
        self.asked: list[tuple[str, int, int]] = []

    def begin(self, name: str, limit_bytes: int, n_pids: int) -> Group:
        self.asked.append((name, limit_bytes, n_pids))
        path = Path(self._folder) / str(len(self.asked))
        path.mkdir()
        return Group(str(path), limit_bytes)

    def starve(self) -> None:
        """The last one, as the kernel would say it."""
        (Path(self._folder) / str(len(self.asked)) / "memory.events").write_text("oom 1\noom_kill 1\n")


async def starved(it: Resident, groups: Allotted, known: Corrections, state: ModelState) -> float:
    """Its load ends in this state for want of memory; the back-off."""
    it.load(5.0, lambda _: None, lambda: None, lambda _: None, groups, 2.0)
    assert it._starting is not None
    await it._starting
    it.load_error = None  # of the process that could not be made here
    if state is not it.model.state:
        it.model.move(state)
    groups.starve()
    it.learn_end(known)
    return it.reaped(KILLED, 100.0)


async def test_a_worker_may_have_what_was_reserved_and_some_more(resident: Resident, tmp_path: Path) -> None:
    groups = Allotted(tmp_path)
    await starved(resident, groups, Corrections(), ModelState.LOADING)
    ((place, limit_bytes, n_pids),) = groups.asked
    reserved_bytes = resident.footprint.bytes_on["host"]
    assert (place, limit_bytes, n_pids) == ("alpha", 2 * reserved_bytes + SPARE_BYTES, SPARE_PIDS + 1)


async def test_one_that_took_more_while_it_ran_is_told_so_and_gets_more(resident: Resident, tmp_path: Path) -> None:
    groups, known = Allotted(tmp_path), Corrections()
    before = resident.bytes_on["host"]
    await starved(resident, groups, known, ModelState.READY)
    assert resident.load_error is not None
    assert resident.load_error.code is Code.WORKER_OOM
    assert f"it may have {groups.asked[0][1] >> 20:,} MiB" in resident.load_error.message
    resident.price(known)
    assert before < resident.bytes_on["host"] <= corrections.MOST * before
    resident.model.move(ModelState.COLD)
    await starved(resident, groups, known, ModelState.READY)
    assert groups.asked[1][1] > groups.asked[0][1]


async def test_one_that_took_more_while_loading_is_tried_once_more_with_more(
    resident: Resident, tmp_path: Path
) -> None:
    groups, known = Allotted(tmp_path), Corrections()
    n_cells, before = resident.model.plan.kv_cells, resident.bytes_on["host"]
    assert await starved(resident, groups, known, ModelState.LOADING) == 0.0
    assert (resident.load_error, resident.model.plan.kv_cells) == (None, n_cells)
    assert resident.bytes_on["host"] > before
    resident.model.move(ModelState.COLD)
    assert await starved(resident, groups, known, ModelState.LOADING) > 0.0
    assert resident.load_error is not None
    assert resident.load_error.code is Code.WORKER_OOM


async def test_a_load_of_another_file_than_was_imported_is_not_tried_again(resident: Resident) -> None:
    await begin(resident)
    resident.load_error = None
    resident.refute()
    assert resident.reaped(KILLED, 100.0) > 0.0
    assert resident.refusal(100.0).code is Code.MODEL_CORRUPT


async def test_a_refusal_never_says_to_come_back_at_once(resident: Resident) -> None:
    await begin(resident)
    resident.reaped(FAILED, 100.0)
    assert resident.refusal(500.0).retry_after_ms == 1
    resident.model.move(ModelState.COLD)


def test_a_quiet_graph_teaches_nothing_and_a_busy_one_that_more_is_needed(folder: Path, ledger: Ledger) -> None:
    entry = Catalog([folder]).scan()["alpha"]
    assert entry.facts is not None
    facts = msgspec.structs.replace(entry.facts, backend="onnx", task="embed", pooling="mean", weights_bytes=1 << 20)
    plan = make_plan("alpha", facts, build(folder).node.config, 1)
    it = Resident("alpha", "alpha", facts, msgspec.structs.replace(plan, backend="onnx"), 60.0, ledger)
    it.widest_prompt = plan.n_ubatch  # one long text, in a call of its own
    known, price = Corrections(), it.footprint
    it.observe({"host": price.host_anon_bytes // 2}, 0, known)
    it.price(known)
    assert it.bytes_on["host"] == price.bytes_on["host"]
    it.observe({"host": price.host_anon_bytes + 1000}, 0, known)
    it.price(known)
    assert it.bytes_on["host"] == price.bytes_on["host"] + 1000
