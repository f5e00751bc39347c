"""What one client saw of one request, and what is wrong with that: a gap, a repetition, two ends, an end that lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DONE = ""  # the code of an end that is no error


@dataclass(frozen=True, slots=True)
class Truth:
    """What the whole answer is, whatever happens on its way."""

    tokens: Sequence[int]
    text: str


@dataclass(frozen=True, slots=True)
class Piece:
    """One message with tokens."""

    index: int  # of its first token
    tokens: Sequence[int]
    text: str


@dataclass(frozen=True, slots=True)
class End:
    """A last message, or a status that is no OK."""

    code: str
    n_tokens: int  # as it says
    at_s: float


@dataclass(slots=True)
class History:
    """In the order in which it came."""

    id: str
    asked_s: float = 0.0
    key: str = ""  # by which its truth is found
    seen: list[Piece | End] = field(default_factory=list)
    left: str = ""  # why the client did not wait for the end: it cancelled, or was killed
    may: frozenset[str] = frozenset()  # codes of errors that it has itself to thank for

    @property
    def ends(self) -> list[End]:
        return [one for one in self.seen if isinstance(one, End)]

    @property
    def pieces(self) -> list[Piece]:
        return [one for one in self.seen if isinstance(one, Piece)]


def faults(history: History, truth: Truth | None) -> list[str]:
    """Everything that must not be; without a truth, everything that can be told without it."""
    found = _order(history)
    tokens = [token for piece in history.pieces for token in piece.tokens]
    text = "".join(piece.text for piece in history.pieces)
    ends = history.ends
    done = bool(ends) and ends[0].code == DONE
    if done and ends[0].n_tokens != len(tokens):
        found.append(f"{len(tokens)} tokens came, the end says {ends[0].n_tokens}")
    if truth is not None:
        found += _lies(tokens, text, truth, done=done)
    return [f"{history.id}: {fault}" for fault in found]


def _order(history: History) -> list[str]:
    found, n_tokens, n_ends = [], 0, 0
    for one in history.seen:
        if isinstance(one, End):
            n_ends += 1
            if one.code != DONE and one.code not in history.may:
                found.append(f"it ended with {one.code}")
            continue
        if n_ends:
            found.append(f"a message with token {one.index} after the end")
        if one.tokens and one.index > n_tokens:
            found.append(f"a gap: token {one.index} follows {n_tokens - 1}")
        elif one.tokens and one.index < n_tokens:
            found.append(f"a repetition: token {one.index} follows {n_tokens - 1}")
        n_tokens += len(one.tokens)
    if n_ends != 1 and not (history.left and n_ends == 0):
        found.append(f"{n_ends} ends")
    return found


def _lies(tokens: list[int], text: str, truth: Truth, *, done: bool) -> list[str]:
    found = []
    whole = list(truth.tokens)
    if (tokens != whole) if done else (tokens != whole[: len(tokens)]):
        at = next(
            (i for i, (a, b) in enumerate(zip(tokens, whole, strict=False)) if a != b), min(len(tokens), len(whole))
        )
        found.append(f"wrong tokens from {at} on, of {len(tokens)}")
    if (text != truth.text) if done else not truth.text.startswith(text):
        found.append("the text is not what the tokens spell")
    return found


def line(kind: str, request_id: str, *values: Any) -> bytes:
    """One thing that a client saw, for a file that outlives the client."""
    return msgspec.json.encode((kind, request_id, *values)) + b"\n"


def read(lines: Iterable[bytes], killed: bool = False) -> dict[str, History]:
    """The histories of a client's file, by request. One that was killed may have left half a line."""
    found: dict[str, History] = {}
    for raw in lines:
        if not raw.endswith(b"\n"):
            break
        kind, request_id, *values = msgspec.json.decode(raw)
        history = found.setdefault(request_id, History(request_id))
        if kind == "ask":
            history.asked_s, history.key, may = values
            history.may = frozenset(may)
        elif kind == "got":
            history.seen.append(Piece(*values))
        elif kind == "end":
            history.seen.append(End(*values))
        else:
            history.left = kind
    for history in found.values():
        if killed and not history.ends:
            history.left = "killed"
    return found


def excuse(
    history: History, codes: Iterable[str], blows_s: Sequence[float], *, n_blows: int = 2, before_s: float = 0.0
) -> None:
    """May end with these, too, if its model's worker was ended so often while it was there, or a little before."""
    until_s = history.ends[0].at_s if history.ends else float("inf")
    if sum(history.asked_s - before_s <= at_s <= until_s for at_s in blows_s) >= n_blows:
        history.may |= frozenset(codes)
