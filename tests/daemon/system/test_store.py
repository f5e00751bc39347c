"""Jobs on the disk: what was acknowledged is there, once, whatever happens in between."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import subprocess
import sys
import textwrap
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from inferd.backends.messages import FinishReason, TokenLogprob
from inferd.daemon.domain.durable import DurableJob, Entry, Kept, Loaded, Piece, Progress, State
from inferd.daemon.domain.request import Priority
from inferd.daemon.domain.tools import CallPiece
from inferd.daemon.system import steps
from inferd.daemon.system import store as it
from inferd.daemon.system.rows import MIGRATIONS, ROW_BYTES, Damaged
from inferd.daemon.system.store import Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def job(job_id: str = "j1", **fields: Any) -> DurableJob:
    given = {"tenant": "t", "model": "m", "priority": Priority.BATCH, "created_s": 1.0, "digest": b"d"}
    return DurableJob(**{"id": job_id, **given, **fields})


def entry(job_id: str = "j1", **fields: Any) -> Entry:
    return Entry(job(job_id, **fields), f"request of {job_id}".encode())


def piece(index: int, *words: str) -> Piece:
    return Piece(index, [index + i for i in range(len(words))], [len(word) for word in words], "".join(words))


def grown(one: DurableJob, *pieces: Piece, **fields: Any) -> Progress:
    """A job that gets these."""
    n_tokens = one.n_tokens + sum(len(it.tokens) for it in pieces)
    return Progress(replace(one, n_tokens=n_tokens, **fields), one.n_tokens, pieces)


def ended(one: DurableJob, *pieces: Piece) -> Progress:
    how = {"state": State.DONE, "ended_s": 9.0, "finish_reason": FinishReason.STOP, "completion_tokens": 3}
    return grown(one, *pieces, **how)


def pieces_of(store: Store, job_id: str = "j1", offset: int = 0) -> list[Piece]:
    return store.since(job_id, offset)[1]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "state")) as store:
        assert store.open()
        yield store


@contextmanager
def full_disk(store: Store) -> Iterator[None]:
    """No file may grow: what the kernel says then is what a full disk says."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def reopened(store: Store) -> Store:
    store.close()
    assert store.open()
    return store


# what is kept


def test_a_job_comes_back_as_it_was(store: Store) -> None:
    whole = job(
        key="k",
        deadline_s=7.5,
        priority=Priority.NORMAL,
        resumed=2,
        prompt_tokens=5,
        cached_tokens=4,
        code="internal",
        error="why",
    )
    assert store.commit([Entry(whole, b"\0raw")], []) == [whole]
    assert reopened(store).get("j1") == whole
    assert store.live() == [whole]
    assert store.load(["j1", "nobody"]) == [Loaded("j1", b"\0raw", None, Kept())]
    done = ended(whole, piece(0, "a "))
    store.commit([], [done])
    assert reopened(store).get("j1") == done.job
    assert store.live() == []


def test_an_answer_comes_back_with_all_that_belongs_to_it(store: Store) -> None:
    calls = [(0, CallPiece(0, "id", "f", '{"a": ')), (1, CallPiece(0, arguments="1}"))]
    logprobs = [TokenLogprob(1, -0.5, "ä", [(2, -1.5, "b")]), TokenLogprob(2, -0.25, "\0")]
    rich = Piece(0, [1, 2**31], [1, 1], "ä\0", calls, logprobs)
    store.commit([entry()], [])
    store.commit([], [Progress(job(n_tokens=2), 0, (rich,), [7, 8, 9])])
    assert pieces_of(reopened(store)) == [rich]
    assert store.load(["j1"]) == [Loaded("j1", b"request of j1", [7, 8, 9], Kept([1, 2**31], 2, {0: 8}))]


def test_a_reader_gets_the_piece_that_has_its_token_and_those_after_it(store: Store) -> None:
    store.commit([entry()], [])
    one = job()
    for n in range(40):
        step = grown(one, piece(2 * n, "a", "b"))
        store.commit([], [step])
        one = step.job
    assert [it.index for it in pieces_of(store, offset=5)] == list(range(4, 4 + 2 * it.PAGE_PIECES, 2))
    assert [it.index for it in pieces_of(store, offset=79)] == [78]
    assert [it.index for it in pieces_of(store, offset=80)] == [78]
    assert store.since("nobody", 0) == (None, [])


def test_jobs_are_listed_newest_first(store: Store) -> None:
    store.commit([entry(f"j{i}", tenant="ab"[i % 2]) for i in range(6)], [])
    store.commit([], [ended(job("j2", tenant="a"))])
    assert [one.id for one in store.newest(None, None, 3)] == ["j5", "j4", "j3"]
    assert [one.id for one in store.newest("a", None, 9)] == ["j4", "j2", "j0"]
    assert [one.id for one in store.newest(None, State.DONE, 9)] == ["j2"]
    assert [one.id for one in store.newest("b", State.DONE, 9)] == []
    assert [one.id for one in store.live()] == ["j0", "j1", "j3", "j4", "j5"]


# once


def test_a_key_is_one_jobs_of_its_tenant(store: Store) -> None:
    first, second, theirs = entry("j1", key="k"), entry("j2", key="k"), entry("j3", key="k", tenant="u")
    assert store.commit([first, second, theirs], []) == [first.job, first.job, theirs.job]
    assert reopened(store).commit([entry("j4", key="k")], []) == [first.job]
    assert store.by_key("t", "k") == first.job
    assert store.by_key("v", "k") is None
    assert store.get("j2") is None


def test_jobs_without_a_key_are_different_ones(store: Store) -> None:
    store.commit([entry("j1"), entry("j2")], [])
    assert len(store.live()) == 2


def test_a_job_that_was_refused_is_not_found_by_its_key(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commit failed for us and not for the disk, and the file was opened anew since."""
    with monkeypatch.context() as patch:
        patch.setattr(it, "_n_bytes", Mock(side_effect=sqlite3.OperationalError("disk I/O error")))
        with pytest.raises(StoreError):
            store.commit([entry("j1", key="k")], [])
    assert store.get("j1") is not None  # the disk has it
    store.close()
    assert store.by_key("t", "k") is None
    assert store.commit([entry("j2", key="k")], []) == [job("j2", key="k")]


def test_an_id_is_one_jobs_of_all_tenants(store: Store) -> None:
    first = entry("j1")
    assert store.commit([first, entry("j1", tenant="u")], []) == [first.job] * 2


def test_a_job_ends_once(store: Store) -> None:
    store.commit([entry()], [])
    done = ended(job(), piece(0, "a"))
    store.commit([], [done])
    again = grown(done.job, piece(1, "b"), state=State.FAILED, code="internal")
    store.commit([], [done, again])
    assert store.get("j1") == done.job
    assert pieces_of(store) == [piece(0, "a")]


def test_tokens_that_are_there_are_not_written_again(store: Store) -> None:
    """A commit may have failed for us and not for the disk; then the next one brings the same and more."""
    store.commit([entry()], [grown(job(), piece(0, "a", "b"))])  # the job is not there yet when it grows
    assert pieces_of(store) == []
    store.commit([], [grown(job(), piece(0, "a", "b"))])
    store.commit([], [grown(job(), piece(0, "a", "b", "c"), piece(3, "d"))])
    assert "".join(it.text for it in pieces_of(store)) == "abcd"
    assert store.load(["j1"])[0].kept.tokens == [0, 1, 2, 3]


def test_a_gap_is_never_written(store: Store) -> None:
    store.commit([entry()], [])
    store.commit([], [grown(job(n_tokens=3), piece(3, "d"))])
    assert pieces_of(store) == []
    one = store.get("j1")
    assert one is not None
    assert one.n_tokens == 0


# what is forgotten


def test_old_jobs_are_forgotten_with_all_that_was_theirs(store: Store) -> None:
    store.commit([entry(f"j{i}", key=f"k{i}") for i in range(3)], [])
    for i in range(2):
        store.commit([], [grown(job(f"j{i}"), piece(0, "a"), state=State.DONE, ended_s=float(i))])
    assert store.prune(1.0) == 1
    assert [one.id for one in store.newest(None, None, 9)] == ["j2", "j1"]
    assert pieces_of(store, "j0") == []
    assert store.load(["j0"]) == []
    assert store.by_key("t", "k0") is None
    assert store.prune(1.0) == 0


def test_a_request_goes_when_its_job_is_over(store: Store) -> None:
    store.commit([Entry(job(key="k"), bytes(2**20))], [])
    before = store.used_bytes
    assert before > 2**20
    store.commit([], [Progress(job(), 0, (), list(range(1000)))])
    store.commit([], [ended(job(), piece(0, "a", "b"))])
    assert store.used_bytes < before - 2**20 + 2**16
    assert store.load(["j1"]) == []
    assert pieces_of(store) == [piece(0, "a", "b")]
    assert store.commit([entry("j2", key="k")], [])[0].id == "j1"


def test_it_is_known_what_each_tenant_takes(store: Store) -> None:
    store.commit([Entry(job(), bytes(1000)), Entry(job("j2", tenant="u"), bytes(50))], [])
    assert (store.bytes_of("t"), store.bytes_of("u")) == (ROW_BYTES + 1000, ROW_BYTES + 50)
    step = Progress(job(n_tokens=2), 0, (piece(0, "ab", "c"),), [1, 2, 3])
    store.commit([], [step])
    assert store.bytes_of("t") == ROW_BYTES + 1000 + 3 * 4 + 2 * 4 + 2 * 4 + 3
    store.commit([], [ended(step.job)])
    assert store.bytes_of("t") == ROW_BYTES + 2 * 4 + 2 * 4 + 3
    assert reopened(store).bytes_of("nobody") == 0


def test_what_tenants_take_is_found_in_an_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "old"
    with monkeypatch.context() as patch:
        patch.setattr(it, "MIGRATIONS", MIGRATIONS[:1])
        patch.setattr(steps, "_add_bytes", Mock())
        patch.setattr(steps, "_forget_request", Mock(return_value=0))
        with closing(Store(folder)) as store:
            store.open()
            store.commit([Entry(job(), bytes(1000)), Entry(job("j2", tenant="u"), bytes(1000))], [])
            store.commit([], [Progress(job(n_tokens=1), 0, (piece(0, "ab"),), [1]), ended(job("j2"), piece(0, "ä"))])
    with closing(Store(folder)) as store:
        assert store.open()
        assert store.bytes_of("t") == ROW_BYTES + 1000 + 4 + 4 + 4 + 2
        assert store.bytes_of("u") == ROW_BYTES + 4 + 4 + 2
        assert store.load(["j2"]) == []
        assert store.load(["j1"])[0].request == bytes(1000)


# files


def test_nobody_else_can_read_the_files(store: Store, tmp_path: Path) -> None:
    store.commit([entry()], [])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()}
    assert modes == {"jobs.db": 0o600, "jobs.db-wal": 0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_two_daemons_do_not_share_a_file(store: Store, tmp_path: Path) -> None:
    with closing(Store(tmp_path / "state")) as other:
        with pytest.raises(StoreError, match="another daemon uses the folder"):
            other.open()
        store.close()
        assert other.open()


def test_a_folder_that_cannot_be_used_says_so_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "x", tmp_path / "file"):
        with closing(Store(folder)) as store, pytest.raises(StoreError) as caught:
            store.open()
        assert "cannot be used" in str(caught.value)
        assert str(tmp_path) not in str(caught.value)


def test_a_file_of_a_newer_inferd_is_left_alone(store: Store, tmp_path: Path) -> None:
    store.close()
    path = tmp_path / "state" / "jobs.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    for _ in range(2):
        with pytest.raises(StoreError, match="a newer inferd"):
            store.open()
    assert [path.name for path in path.parent.iterdir() if "damaged" in path.name] == []


def test_an_older_file_is_brought_up_to_date(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.commit([entry()], [])
    monkeypatch.setattr(it, "MIGRATIONS", (*MIGRATIONS, "ALTER TABLE jobs ADD COLUMN note TEXT;"))
    assert reopened(store).live() == [job()]
    store.close()
    with closing(sqlite3.connect(tmp_path / "state" / "jobs.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
        assert db.execute("SELECT note FROM jobs").fetchall() == [(None,)]


@pytest.mark.parametrize("damage", ["header", "middle", "cut", "text"])
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(store: Store, tmp_path: Path, damage: str) -> None:
    store.commit([Entry(job(f"j{i}"), os.urandom(3000)) for i in range(30)], [])
    store.close()
    path = tmp_path / "state" / "jobs.db"
    raw = bytearray(path.read_bytes())
    match damage:
        case "header":
            raw[:100] = bytes(100)
        case "middle":
            raw[4096 : 5 * 4096] = os.urandom(4 * 4096)
        case "cut":
            del raw[len(raw) // 2 :]
        case "text":
            raw = bytearray(b"not a database at all, but long enough to be read as one" * 40)
    path.write_bytes(raw)
    assert not store.open()
    assert store.live() == []
    store.commit([entry()], [])
    assert reopened(store).live() == [job()]
    (aside,) = [path for path in path.parent.iterdir() if "damaged" in path.name]
    assert aside.read_bytes()[100:] == raw[100:]  # SQLite counts in the header how often it was opened


def test_a_byte_that_changed_is_noticed_when_it_is_read(store: Store, tmp_path: Path) -> None:
    store.commit([entry()], [])
    store.commit([], [grown(job(), piece(0, "a sentence that is easy to find"))])
    store.close()
    path = tmp_path / "state" / "jobs.db"
    path.write_bytes(path.read_bytes().replace(b"easy to find", b"easy to fake"))
    assert store.open()  # the tables themselves are sound
    with pytest.raises(Damaged):
        store.since("j1", 0)
    assert store.load(["j1"]) == [Loaded("j1", b"", None, Kept(), damaged=True)]


# a disk that refuses


def test_what_a_full_disk_refuses_is_not_there_and_the_next_try_is_taken(store: Store) -> None:
    store.commit([entry("j1")], [])
    with full_disk(store):
        for _ in range(3):
            with pytest.raises(StoreError):
                store.commit([entry("j2")], [grown(job("j1"), piece(0, "a"))])
    assert store.commit([entry("j3")], [grown(job("j1"), piece(0, "a"))]) == [job("j3")]
    assert [one.id for one in reopened(store).live()] == ["j1", "j3"]
    assert [it.text for it in pieces_of(store)] == ["a"]


def test_what_was_refused_is_not_there_even_where_the_disk_had_it(store: Store) -> None:
    """The disk may have taken what it said it did not."""
    refused = entry("j1", key="k")
    store.commit([refused], [])
    store._disowned.append(("j1", refused.job.created_s))
    assert store.commit([entry("j2", key="k")], []) == [entry("j2", key="k").job]


def test_it_can_be_read_while_the_disk_is_full(store: Store) -> None:
    store.commit([entry()], [])
    with full_disk(store):
        assert store.get("j1") == job()


# one bad row


def flipped(store: Store, *changes: str) -> None:
    """As a bad byte leaves it: SQLite takes anything into any column."""
    store.close()
    with closing(sqlite3.connect(store._path)) as db:
        for change in changes:
            db.execute(change)
        db.commit()
    assert store.open()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE pieces SET text = CAST(x'68ec6c' AS TEXT) WHERE job = 'j1'",
        "UPDATE pieces SET text = x'68ec6c' WHERE job = 'j1'",
        "UPDATE pieces SET tokens = 'ab' WHERE job = 'j1'",
        "UPDATE pieces SET more = 7 WHERE job = 'j1'",
        "UPDATE requests SET body = 'ab' WHERE job = 'j1'",
        "UPDATE requests SET body = CAST(x'ec' AS TEXT) WHERE job = 'j1'",
        "UPDATE prompts SET tokens = x'00' WHERE job = 'j1'",
        "UPDATE prompts SET sum = 'x' WHERE job = 'j1'",
    ],
)
def test_a_bad_byte_is_the_end_of_its_job_only(store: Store, change: str) -> None:
    store.commit([entry("j1"), entry("j2")], [])
    for name in ("j1", "j2"):
        store.commit([], [Progress(job(name, n_tokens=2), 0, (piece(0, "hel", "lo"),), [1, 2])])
    flipped(store, change)
    damaged, sound = store.load(["j1", "j2"])
    assert (damaged.damaged, sound.damaged, sound.kept.tokens) == (True, False, [0, 1])
    if "pieces" in change:
        with pytest.raises(Damaged):
            store.since("j1", 0)
    assert pieces_of(store, "j2") == [piece(0, "hel", "lo")]


@pytest.mark.parametrize(
    "change",
    [
        "state = 'queuef'",
        "state = CAST(x'71ec' AS TEXT)",
        "priority = 'batcj'",
        "priority = CAST(x'62ec' AS TEXT)",
        "n_tokens = 'many'",
        "finish_reason = 'stoq'",
        "digest = 3",
        "key = CAST(x'6bec' AS TEXT)",
    ],
)
def test_a_row_that_cannot_be_read_is_a_job_that_failed(store: Store, change: str) -> None:
    store.commit([entry("j1", key="k"), entry("j2")], [])
    flipped(store, f"UPDATE jobs SET {change} WHERE id = 'j1'")
    assert store.live() == [job("j2")]
    failed = store.get("j1")
    assert failed is not None
    assert (failed.state, failed.code, failed.tenant) == (State.FAILED, "internal", "t")
    assert [one.id for one in store.newest("t", None, 9)] == ["j2", "j1"]
    assert store.live() == reopened(store).live() == [job("j2")]


def test_one_whose_owner_cannot_be_read_is_left_out(store: Store) -> None:
    store.commit([entry("j1"), entry("j2")], [])
    flipped(store, "UPDATE jobs SET tenant = CAST(x'74ec' AS TEXT) WHERE id = 'j1'")
    assert store.live() == store.newest(None, None, 9) == [job("j2")]
    with pytest.raises(Damaged):
        store.get("j1")
    (first, other) = store.commit([entry("j1"), entry("j3")], [])  # it does not take j3 with it
    assert (first.state, other) == (State.FAILED, job("j3"))


def test_it_is_opened_again_by_who_has_it_open(store: Store) -> None:
    store.commit([entry()], [])
    assert store.open()
    assert store.live() == [job()]


def test_an_empty_commit_tells_whether_the_disk_takes_anything(store: Store) -> None:
    store.commit([], [])
    with full_disk(store), pytest.raises(StoreError):
        store.commit([], [])
    store.commit([], [])


# killed


CHILD = """
    import os, sys
    from pathlib import Path
    from inferd.tests.daemon.system import test_store as t
    store = t.Store(Path(sys.argv[1]))
    store.open()
    one = t.job()
    store.commit([t.entry()], [])
    n = 0
    while True:
        step = t.grown(one, t.piece(n, "a", "b"))
        store.commit([t.entry(f"more{n}")], [step])
        one, n = step.job, n + 2
        print(n, flush=True)
"""


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path)]
    for _ in range(2):
        folder = tmp_path / os.urandom(4).hex()
        with subprocess.Popen([*command[:-1], str(folder)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            told = 0
            while told < 20:
                told = int(child.stdout.readline())
            child.kill()
            told = int(([str(told), *child.stdout.read().split()])[-1])
        with closing(Store(folder)) as store:
            assert store.open()
            (loaded,) = store.load(["j1"])
            assert loaded.kept.tokens[:told] == list(range(told))
            assert len(loaded.kept.tokens) in (told, told + 2)  # the last one may not have been told
            assert len(store.live()) == 1 + len(loaded.kept.tokens) // 2


# any order


class Model:
    """What must be there."""

    def __init__(self) -> None:
        self.jobs: dict[str, DurableJob] = {}
        self.texts: dict[str, str] = {}
        self.keys: dict[str, str] = {}

    def take_in(self, one: DurableJob) -> str:
        """The id that an entry must get."""
        if one.key in self.keys:
            return self.keys[one.key]
        if one.id not in self.jobs:
            self.jobs[one.id], self.texts[one.id] = one, ""
            if one.key:
                self.keys[one.key] = one.id
        return one.id

    def advance(self, step: Progress) -> None:
        self.jobs[step.job.id] = step.job
        self.texts[step.job.id] += "".join(it.text for it in step.pieces)


IDS = st.sampled_from(["j1", "j2", "j3"])
WORDS = st.lists(st.text("ab ", max_size=3), min_size=1, max_size=3)
MOVES = st.one_of(
    st.tuples(st.just("submit"), IDS, st.sampled_from(["", "k1", "k2"])),
    st.tuples(st.just("grow"), IDS, WORDS),
    st.tuples(st.just("end"), IDS, WORDS),
    st.tuples(st.just("refused"), IDS, WORDS),
    st.tuples(st.just("reopen"), st.none(), st.none()),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MOVES, max_size=15))
def test_in_any_order_what_was_acknowledged_is_there_once(tmp_path: Path, moves: list[Any]) -> None:
    model = Model()
    with closing(Store(tmp_path / os.urandom(6).hex())) as store:
        assert store.open()
        for kind, job_id, given_ in moves:
            known = model.jobs.get(job_id)
            match kind:
                case "submit":
                    one = job(job_id, key=given_)
                    assert store.commit([Entry(one, b"")], [])[0].id == model.take_in(one)
                case "reopen":
                    reopened(store)
                case _ if known is not None and not known.over:
                    new = piece(known.n_tokens, *given_)
                    step = ended(known, new) if kind == "end" else grown(known, new)
                    if kind == "refused":
                        with full_disk(store), pytest.raises(StoreError):
                            store.commit([entry("never")], [step])
                    else:
                        store.commit([], [step])
                        model.advance(step)
        reopened(store)
        assert {one.id: one for one in store.newest(None, None, 99)} == model.jobs
        assert {one.id for one in store.live()} == {one.id for one in model.jobs.values() if not one.over}
        for job_id, text in model.texts.items():
            for loaded in store.load([job_id]):
                assert loaded.kept.tokens == list(range(model.jobs[job_id].n_tokens))
            assert bool(store.load([job_id])) is not model.jobs[job_id].over
            assert "".join(it.text for it in pieces_of(store, job_id)[: it.PAGE_PIECES]) == text
