"""Jobs as rows of the store: its tables, what stands in their columns, and the sums that tell what is damaged."""

from __future__ import annotations

import zlib
from array import array
from typing import TYPE_CHECKING, Any

import msgspec

from ...backends.messages import FinishReason, TokenLogprob
from ..domain.durable import DurableJob, Piece, State
from ..domain.request import Priority
from ..domain.tools import CallPiece

if TYPE_CHECKING:
    from collections.abc import Sequence

# Each brings the file from the version of its place in the list to the next one.
MIGRATIONS = (
    """
    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, model TEXT NOT NULL,
        priority TEXT NOT NULL, created_s REAL NOT NULL, digest BLOB NOT NULL, key TEXT, deadline_s REAL,
        state TEXT NOT NULL, n_tokens INTEGER NOT NULL, resumed INTEGER NOT NULL, ended_s REAL, finish_reason TEXT,
        prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
        code TEXT NOT NULL, error TEXT NOT NULL, UNIQUE (tenant, key)
    );
    CREATE INDEX jobs_by_state ON jobs (state, ended_s);
    CREATE INDEX jobs_by_tenant ON jobs (tenant, seq);
    CREATE TABLE requests (
        job TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE, body BLOB NOT NULL, sum INTEGER NOT NULL
    );
    CREATE TABLE prompts (
        job TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE, tokens BLOB NOT NULL, sum INTEGER NOT NULL
    );
    CREATE TABLE pieces (
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, at INTEGER NOT NULL, tokens BLOB NOT NULL,
        lengths BLOB NOT NULL, text TEXT NOT NULL, more BLOB NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (job, at)
    );
    """,
    # What each job takes, for the share of its tenant; kept with the row, as a sum over all pieces would be slow.
    """
    ALTER TABLE jobs ADD COLUMN n_bytes INTEGER NOT NULL DEFAULT 0;
    DELETE FROM requests WHERE job IN (SELECT id FROM jobs WHERE state IN ('done', 'cancelled', 'failed'));
    DELETE FROM prompts WHERE job IN (SELECT id FROM jobs WHERE state IN ('done', 'cancelled', 'failed'));
    UPDATE jobs SET n_bytes = IFNULL((SELECT LENGTH(body) FROM requests WHERE job = id), 0)
        + IFNULL((SELECT LENGTH(tokens) FROM prompts WHERE job = id), 0)
        + IFNULL((SELECT SUM(LENGTH(tokens) + LENGTH(lengths) + LENGTH(CAST(text AS BLOB)) + LENGTH(more))
            FROM pieces WHERE job = id), 0);
    CREATE INDEX jobs_by_bytes ON jobs (tenant, n_bytes);
    """,
)
ROW_BYTES = 512  # of a job without what it holds: its row and those of the indexes
FIELDS = DurableJob.__struct_fields__
COLUMNS = ", ".join(FIELDS)
CHANGING = (
    "priority", "state", "n_tokens", "resumed", "ended_s", "finish_reason", "prompt_tokens", "cached_tokens",
    "completion_tokens", "code", "error",
)  # fmt: skip
INSERT = f"INSERT INTO jobs ({COLUMNS}) VALUES ({', '.join('?' * len(FIELDS))}) ON CONFLICT DO NOTHING"
# A job that has ended stays as it ended, whoever comes later: there is one result.
UPDATE = f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in CHANGING)} WHERE id = ? AND state = 'queued'"
SELECT = f"SELECT {COLUMNS} FROM jobs"
# Any state that is none of an end: a damaged one must not hide its job.
SELECT_LIVE = f"SELECT seq, {COLUMNS} FROM jobs WHERE state NOT IN ('done', 'cancelled', 'failed') ORDER BY seq"
# Of a row that cannot be read: whatever may be wrong is made something that can.
FAIL = """
    UPDATE jobs SET priority = 'batch', created_s = CAST(created_s AS REAL), digest = x'', key = NULL,
    deadline_s = NULL, state = 'failed', n_tokens = 0, resumed = 0, ended_s = ?, finish_reason = NULL,
    prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0, code = 'internal', error = ? WHERE seq = ?
"""
DAMAGED = "what was kept of this job is damaged"
INSERT_PIECE = "INSERT INTO pieces (job, at, tokens, lengths, text, more, sum) VALUES (?, ?, ?, ?, ?, ?, ?)"
SELECT_PIECES = "SELECT at, tokens, lengths, text, more, sum FROM pieces WHERE job = ? AND at >= ? ORDER BY at"


class Damaged(Exception):
    """Something is not what was written."""


class _More(msgspec.Struct, frozen=True, array_like=True):
    """What most pieces lack."""

    calls: list[tuple[int, CallPiece]] = []
    logprobs: list[TokenLogprob] | None = None


_MORE = msgspec.msgpack.Decoder(_More)


def to_columns(job: DurableJob, names: Sequence[str] = FIELDS) -> list[Any]:
    return [_column(job, name) for name in names]


def to_text(raw: bytes) -> str:
    """What SQLite holds as text. What is none can still be read, and then fails its own row only."""
    return raw.decode(errors="surrogateescape")


def to_job(row: Sequence[Any]) -> DurableJob:
    """Raises Damaged."""
    given = dict(zip(FIELDS, row, strict=True))
    try:
        for value in given.values():
            if isinstance(value, str):
                value.encode()
        return msgspec.convert(given | {"key": given["key"] or ""}, DurableJob)
    except ValueError as error:  # of Unicode and of msgspec, too
        raise Damaged(f"the row of job {given['id']!a}: {type(error).__name__}") from None


def to_row(job_id: str, piece: Piece) -> tuple[Any, ...]:
    """Of the columns of pieces."""
    more = msgspec.msgpack.encode(_More(piece.calls, piece.logprobs)) if piece.calls or piece.logprobs else b""
    row = piece.index, pack(piece.tokens), pack(piece.lengths), piece.text, more
    return job_id, *row, _sum(job_id, *row)


def to_piece(job_id: str, row: Sequence[Any]) -> Piece:
    """Raises Damaged."""
    at, tokens, lengths, text, more, checksum = row
    try:
        if _sum(job_id, at, tokens, lengths, text, more) == checksum:
            extra = _MORE.decode(more) if more else _More()
            return Piece(at, unpack(tokens), unpack(lengths), text, extra.calls, extra.logprobs)
    except (TypeError, AttributeError, ValueError):  # a column of another type, or text that is none
        pass
    raise Damaged(f"the answer of job {job_id} from its token {at!a} on")


def n_bytes_of(row: Sequence[Any]) -> int:
    """What a row of pieces holds."""
    return sum(len(part.encode()) if isinstance(part, str) else len(part) for part in row[2:6])


def pack(numbers: list[int]) -> bytes:
    return array("I", numbers).tobytes()


def unpack(raw: bytes) -> list[int]:
    return array("I", raw).tolist()


def _column(job: DurableJob, name: str) -> Any:
    value = getattr(job, name)
    if name == "key":
        return value or None  # any number of jobs have none
    return value.value if isinstance(value, (State, Priority, FinishReason)) else value


def _sum(job_id: str, at: int, tokens: bytes, lengths: bytes, text: str, more: bytes) -> int:
    checksum = zlib.crc32(f"{job_id} {at} ".encode())
    for part in (tokens, lengths, text.encode(), more):
        checksum = zlib.crc32(part, checksum)
    return checksum
