"""Jobs on the disk: SQLite, and the only room that knows it.

A commit is one transaction that is on the disk when it returns. Every method waits for the disk, and only one thread at
a time calls.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from .rows import DAMAGED as DAMAGED_ROW
from .rows import FAIL, MIGRATIONS, ROW_BYTES, SELECT, SELECT_LIVE, SELECT_PIECES, Damaged, to_job, to_piece, to_text
from .steps import advance, first, load, take_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from ..domain.durable import DurableJob, Entry, Loaded, Piece, Progress, State

log = logging.getLogger(__name__)

NAME = "jobs.db"
FOLDER_MODE, FILE_MODE = 0o700, 0o600
LOCK_S = 0.5  # for another process to let go of the file
PAGE_PIECES = 16  # of one read
AT_ONCE = 100  # jobs that are forgotten in one transaction
WAL_BYTES = 64 * 2**20  # that stay of the log after a large commit
# One process has the file as long as it lives, so no shared memory is needed beside it.
SETTINGS = (
    "auto_vacuum = INCREMENTAL",
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    f"journal_size_limit = {WAL_BYTES}",
)

DAMAGED = "the file of the jobs is damaged; the next start of the daemon sets it aside"
IN_USE = "another daemon uses the folder"
REFUSALS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: IN_USE,
    sqlite3.SQLITE_LOCKED: IN_USE,
    sqlite3.SQLITE_READONLY: "the disk is read-only",
    sqlite3.SQLITE_CANTOPEN: "the folder cannot be used",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
}
DAMAGES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class StoreError(Exception):
    """The disk will not; a sentence without paths. What was to be written is not."""


class Store:
    """One file. After a failure the next call opens it anew."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._db: sqlite3.Connection | None = None
        self._disowned: list[
            tuple[str, float]
        ] = []  # jobs of commits that failed, which may be on the disk all the same
        self.used_bytes = 0  # as of the last commit

    def open(self) -> bool:
        """Check what is there and make the rest; False when it was damaged and is set aside. Raises StoreError."""
        self.close()  # what an earlier try has open would look like another daemon
        try:
            with self._failing():
                self._connect(check=True)
        except Damaged as error:
            log.warning("the file of the jobs is damaged (%s) and is set aside; a new one is begun", error)
            with self._failing():
                self._set_aside()
                self._connect(check=False)
            return False
        return True

    def close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    # writing; each raises StoreError

    def commit(self, entries: Sequence[Entry], progress: Sequence[Progress]) -> list[DurableJob]:
        """All of it, or nothing. Returns for each entry its job, or the one that has its key or its id."""
        try:
            with self._transaction() as db:
                db.executemany("DELETE FROM jobs WHERE id = ? AND created_s = ?", self._disowned)
                for step in progress:
                    advance(db, step)
                jobs = [take_in(db, entry) for entry in entries]
                if not (progress or entries):  # somebody asks whether the disk takes anything, and this is something
                    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        except StoreError:
            self._disowned += [(entry.job.id, entry.job.created_s) for entry in entries]
            raise
        self._disowned.clear()
        return jobs

    def prune(self, before_s: float) -> int:
        """Forget some of the jobs that ended before then; returns how many."""
        with self._transaction() as db:
            which = "SELECT id FROM jobs WHERE state != 'queued' AND ended_s < ? ORDER BY ended_s LIMIT ?"
            ids = db.execute(which, (before_s, AT_ONCE)).fetchall()
            db.executemany("DELETE FROM jobs WHERE id = ?", ids)
        if ids:
            with self._using() as db:
                db.execute("PRAGMA incremental_vacuum").fetchall()
        return len(ids)

    # reading; each raises StoreError

    def live(self) -> list[DurableJob]:
        """Those that have not ended, in the order in which they came. One whose row cannot be read has failed."""
        jobs: list[DurableJob] = []
        damaged: list[int] = []
        with self._using() as db:
            for seq, *row in db.execute(SELECT_LIVE):
                try:
                    jobs.append(to_job(row))
                except Damaged as error:
                    log.error("damaged on the disk: %s", error)
                    damaged.append(seq)
        if damaged:
            try:
                with self._transaction() as db:
                    db.executemany(FAIL, [(time.time(), DAMAGED_ROW, seq) for seq in damaged])
            except StoreError as error:  # they are left out all the same
                log.error("nothing can be written of damaged jobs: %s", error)
        return jobs

    def get(self, job_id: str) -> DurableJob | None:
        """Raises Damaged, too."""
        with self._using() as db:
            return first(db, "id = ?", job_id)

    def by_key(self, tenant: str, key: str) -> DurableJob | None:
        """Raises Damaged, too."""
        if self._disowned:  # nobody may find one of these and take it for a job that goes on
            self.commit([], [])
        with self._using() as db:
            return first(db, "tenant = ? AND key = ?", tenant, key)

    def bytes_of(self, tenant: str) -> int:
        """What its jobs take."""
        with self._using() as db:
            n_jobs, n_bytes = db.execute(
                "SELECT COUNT(*), TOTAL(n_bytes) FROM jobs WHERE tenant = ?", (tenant,)
            ).fetchone()
            return int(n_bytes) + int(n_jobs) * ROW_BYTES

    def newest(self, tenant: str | None, state: State | None, limit: int) -> list[DurableJob]:
        """None: of every tenant, in any state. What cannot be read is left out."""
        asked = {"tenant = ?": tenant, "state = ?": state.value if state else None}
        given = {test: value for test, value in asked.items() if value is not None}
        where = f"WHERE {' AND '.join(given)}" if given else ""
        with self._using() as db:
            rows = db.execute(f"{SELECT} {where} ORDER BY seq DESC LIMIT ?", (*given.values(), limit))
            return list(_readable(rows))

    def since(self, job_id: str, offset: int) -> tuple[DurableJob | None, list[Piece]]:
        """A job, and some of its pieces from the one on that has the token at `offset`. Raises Damaged, too."""
        with self._using() as db:
            (at,) = db.execute("SELECT MAX(at) FROM pieces WHERE job = ? AND at <= ?", (job_id, offset)).fetchone()
            rows = db.execute(f"{SELECT_PIECES} LIMIT ?", (job_id, at or 0, PAGE_PIECES))
            pieces = [to_piece(job_id, row) for row in rows]
            return first(db, "id = ?", job_id), pieces

    def load(self, job_ids: Sequence[str]) -> list[Loaded]:
        """Those that are there."""
        with self._using() as db:
            return [loaded for job_id in job_ids if (loaded := load(db, job_id)) is not None]

    # the file

    def _connect(self, *, check: bool) -> sqlite3.Connection:
        """Raises Damaged where it is to be checked."""
        self._make_file()
        db = sqlite3.connect(self._path, timeout=LOCK_S, isolation_level=None, check_same_thread=False)
        db.text_factory = to_text
        try:
            for setting in SETTINGS:
                db.execute(f"PRAGMA {setting}").fetchall()
            db.executescript("BEGIN IMMEDIATE; ROLLBACK;")  # takes the lock, or says that another one has it
            if check and (found := db.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
                raise Damaged(found)
            _migrate(db)
            self.used_bytes = _n_bytes(db)
        except BaseException as error:
            db.close()
            if check and isinstance(error, sqlite3.Error) and _code(error) in DAMAGES:
                raise Damaged(str(error)) from error
            raise
        self._db = db
        return db

    def _make_file(self) -> None:
        """SQLite would make one that others can read."""
        folder = self._path.parent
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        if not self._path.exists():
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE))
            _sync(folder)

    def _set_aside(self) -> None:
        self.close()
        suffix = f".damaged-{time.time_ns()}"
        for path in (self._path, self._path.with_name(f"{NAME}-wal")):
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, path.with_name(path.name + suffix))

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Failures become StoreError, and the next call begins with a new connection."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise _refusal(error) from error

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._failing():
            yield self._db or self._connect(check=False)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """What is begun is undone by a failure, and the connection stays: what a full disk has can still be read."""
        with self._using() as db:
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
                self.used_bytes = _n_bytes(db)
            except BaseException as error:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise _refusal(error) from error
                raise


def _refusal(error: sqlite3.Error | OSError) -> StoreError:
    if isinstance(error, OSError):
        return StoreError(f"the folder cannot be used: {error.strerror}")
    return StoreError(REFUSALS.get(_code(error), "the disk failed"))


def _migrate(db: sqlite3.Connection) -> None:
    """Raises StoreError for a file that a newer inferd has written."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreError("the file of the jobs was written by a newer inferd")
    for to, script in enumerate(MIGRATIONS[version:], version + 1):
        db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {to}; COMMIT;")


def _readable(rows: Iterable[Sequence[Any]]) -> Iterator[DurableJob]:
    for row in rows:
        try:
            yield to_job(row)
        except Damaged as error:
            log.error("damaged on the disk: %s", error)


def _n_bytes(db: sqlite3.Connection) -> int:
    counts = "page_count", "freelist_count", "page_size"
    n_pages, n_free, page_bytes = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in counts)
    return int((n_pages - n_free) * page_bytes)


def _code(error: sqlite3.Error) -> int:
    """Of SQLite, without its finer distinctions."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
