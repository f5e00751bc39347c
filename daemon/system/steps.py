"""What the store does with one job inside of a transaction: take it in, let it grow, load it.

A row that cannot be read is the end of its own job, and of no other one.
"""

from __future__ import annotations

import logging
import zlib
from typing import TYPE_CHECKING

import msgspec

from ..domain.durable import Kept, Loaded, State, kept_of
from .rows import (
    CHANGING,
    DAMAGED,
    INSERT,
    INSERT_PIECE,
    SELECT,
    SELECT_PIECES,
    UPDATE,
    Damaged,
    n_bytes_of,
    pack,
    to_columns,
    to_job,
    to_piece,
    to_row,
    unpack,
)

if TYPE_CHECKING:
    import sqlite3

    from ..domain.durable import DurableJob, Entry, Progress

log = logging.getLogger(__name__)


def take_in(db: sqlite3.Connection, entry: Entry) -> DurableJob:
    """Returns the job, or the one that has its key or its id."""
    job = entry.job
    if db.execute(INSERT, to_columns(job)).rowcount:
        body = job.id, entry.request, zlib.crc32(entry.request)
        db.execute("INSERT INTO requests (job, body, sum) VALUES (?, ?, ?)", body)
        _add_bytes(db, job.id, len(entry.request))
        return job
    try:
        there = first(db, "tenant = ? AND key = ?", job.tenant, job.key) or first(db, "id = ?", job.id)
    except Damaged as error:  # that one's end, and not that of all who are written with it
        log.error("damaged on the disk: %s", error)
        return msgspec.structs.replace(job, state=State.FAILED, code="internal", error=DAMAGED)
    assert there is not None
    return there


def advance(db: sqlite3.Connection, step: Progress) -> None:
    """A commit that failed may have reached the disk all the same: what is there already is not written again."""
    job = step.job
    found = db.execute("SELECT n_tokens FROM jobs WHERE id = ? AND state = 'queued'", (job.id,)).fetchone()
    if found is None or found[0] < step.at:
        return log.error("job %s has ended, or lacks tokens that it had: nothing of it is written", job.id)
    db.execute(UPDATE, (*to_columns(job, CHANGING), job.id))
    n_bytes = 0
    if step.prompt is not None and not job.over:
        tokens = pack(step.prompt)
        row = job.id, tokens, zlib.crc32(tokens)
        db.execute("INSERT OR REPLACE INTO prompts (job, tokens, sum) VALUES (?, ?, ?)", row)
        n_bytes += len(tokens)
    rows = [to_row(job.id, rest) for piece in step.pieces if (rest := piece.since(found[0])) is not None]
    db.executemany(INSERT_PIECE, rows)
    n_bytes += sum(n_bytes_of(row) for row in rows)
    if job.over:  # what was asked for is of use to nobody any more
        n_bytes -= _forget_request(db, job.id)
    _add_bytes(db, job.id, n_bytes)
    return None


def load(db: sqlite3.Connection, job_id: str) -> Loaded | None:
    """All that is needed to go on with a job."""
    found = db.execute("SELECT body, sum FROM requests WHERE job = ?", (job_id,)).fetchone()
    if found is None:
        return None
    prompt = db.execute("SELECT tokens, sum FROM prompts WHERE job = ?", (job_id,)).fetchone()
    rows = (found, prompt) if prompt is not None else (found,)
    try:
        if not all(isinstance(raw, bytes) and zlib.crc32(raw) == checksum for raw, checksum in rows):
            raise Damaged(f"the request of job {job_id}")
        kept = kept_of(to_piece(job_id, row) for row in db.execute(SELECT_PIECES, (job_id, 0)))
    except Damaged as error:
        log.error("damaged on the disk: %s", error)
        return Loaded(job_id, b"", None, Kept(), damaged=True)
    return Loaded(job_id, found[0], None if prompt is None else unpack(prompt[0]), kept)


def first(db: sqlite3.Connection, where: str, *values: str) -> DurableJob | None:
    """Raises Damaged."""
    row = db.execute(f"{SELECT} WHERE {where}", values).fetchone()
    return None if row is None else to_job(row)


def _forget_request(db: sqlite3.Connection, job_id: str) -> int:
    """Returns the bytes that it took."""
    n_bytes = 0
    for table, column in (("requests", "body"), ("prompts", "tokens")):
        found = db.execute(f"DELETE FROM {table} WHERE job = ? RETURNING LENGTH({column})", (job_id,)).fetchall()
        n_bytes += sum(n for (n,) in found)
    return n_bytes


def _add_bytes(db: sqlite3.Connection, job_id: str, n_bytes: int) -> None:
    if n_bytes:
        db.execute("UPDATE jobs SET n_bytes = n_bytes + ? WHERE id = ?", (n_bytes, job_id))
