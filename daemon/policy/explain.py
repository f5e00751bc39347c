"""Decisions in words: what spoke against the alternatives, and one sentence for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..domain.request import Priority
from .admission import AdmitQuestion, Refusal
from .placing import PlaceQuestion, RouteQuestion
from .residency import EvictQuestion, evict
from .turns import ClassQuestion, EndQuestion, PreemptQuestion, TurnQuestion, WaitQuestion

if TYPE_CHECKING:
    from .journal import Record
    from .placing import Copy, Option
    from .turns import Running, Waiting

CLASSES = [priority.value for priority in Priority]

WAITS_FOR = {
    "prompt": "its prompt is being read",
    "predecessor": "the request it supersedes has not let go of its slot yet",
    "load": "the model is being loaded, or on its way out",
    "pressure": "the machine is short of memory, and nothing is loaded now",
    "room": "other models hold the memory that its model needs",
    "slot": "all slots of the model are taken",
    "memory": "too few KV cells are free",
    "turn": "others are served first",
}

PARKED = {
    "preempted": "it made way for an interactive request",
    "evicted": "its model made way for another one",
    "kv_full": "there were no KV cells left for it",
    "device_lost": "the device that it ran on was lost",
    "worker_crashed": "the worker that it ran in ended",
}


def rejected(record: Record) -> list[dict[str, Any]]:
    """The alternatives that were not chosen, each with what spoke against it."""
    match record.question:
        case TurnQuestion(candidates=candidates):
            return [
                {"request": c.request_id, "why": _behind(c, record)}
                for c in candidates
                if c.request_id != record.answer
            ]
        case PreemptQuestion(running=running) as question:
            return [
                {"request": r.request_id, "why": _spared(r, question)} for r in running if r.request_id != record.answer
            ]
        case RouteQuestion(copies=copies):
            return [{"place": c.place, "why": _busier(c)} for c in copies if c.place != record.answer]
        case PlaceQuestion(options=options):
            return [{"place": o.place, "why": _dearer(o)} for o in options if o.place != record.answer]
        case EvictQuestion(holders=holders):
            chosen = record.answer or ()
            return [
                {"model": h.model, "why": h.stays or f"dearer, or not needed: cost {h.cost:.3g} s"}
                for h in holders
                if h.model not in chosen
            ]
        case _:
            return []


def sentence(record: Record, request_id: str) -> str:
    """What the decision meant for one request."""
    match record.question:
        case AdmitQuestion() as question:
            return _admitted(record, question)
        case WaitQuestion() as question:
            others = f"; {question.ahead} others of its class and above wait" if question.ahead > 0 else ""
            again = f" again, as {PARKED[question.parked]}" if question.parked else ""
            return f"waits{again}: {WAITS_FOR[record.answer]}{others}"
        case TurnQuestion() as question if record.answer == request_id:
            owed = " (as its class's floor share)" if any(c.rank in question.owed for c in question.candidates) else ""
            return f"got a slot{owed}; {len(question.candidates) + question.n_others - 1} others went on waiting"
        case TurnQuestion() as question:
            mine = next(c for c in question.candidates if c.request_id == request_id)
            return f"passed over for {record.answer}: {_behind(mine, record)}"
        case PreemptQuestion() as question if record.answer == request_id:
            return f"makes way for {question.request_id}, which is interactive; it goes on later where it stopped"
        case PreemptQuestion():
            return f"found no slot; {record.answer} makes way for it"
        case RouteQuestion(copies=copies) if any(c.knows and c.place == record.answer for c in copies):
            return f"runs on {record.answer}, where its session was"
        case RouteQuestion():
            return f"runs on {record.answer}, the least busy of those with room for it"
        case PlaceQuestion() as question:
            return f"{question.model} is loaded as {record.answer}, where that costs least"
        case EvictQuestion() as question:
            return f"{', '.join(record.answer)} makes way so that {question.model} can be loaded"
        case EndQuestion() as question:
            return f"sent away: {question.message}"
        case ClassQuestion() as question:
            while_it = ", while it has a slot" if question.runs else ""
            return f"moved from {CLASSES[question.rank]} to {CLASSES[record.answer]} by an operator{while_it}"
    raise AssertionError(f"no words for {record.kind}")


def _admitted(record: Record, q: AdmitQuestion) -> str:
    if record.answer is not None:
        return f"refused: {REFUSED[Refusal(record.answer)]}"
    when = "" if q.first_token_ms is None else f"; first token expected within {q.first_token_ms / 1e3:.2f} s"
    return f"taken in as {CLASSES[q.rank]}, about {q.tokens:,} tokens; {q.requests.waiting} waited before it{when}"


REFUSED = {
    Refusal.PRESSURE: "the machine is short of memory",
    Refusal.SHED: "the machine is short of memory, and batch requests go first",
    Refusal.REQUESTS: "too many requests wait",
    Refusal.TENANT_REQUESTS: "too many requests of its tenant wait",
    Refusal.TOKENS: "too many tokens wait",
    Refusal.TENANT_TOKENS: "too many tokens of its tenant wait",
    Refusal.TENSOR_BYTES: "too many bytes of tensors wait",
    Refusal.WAIT: "its first token would have come later than its class allows",
    Refusal.DEADLINE: "it would not have finished before its deadline",
    Refusal.CROWDED: "another request would have missed the deadline it was promised",
}


def _behind(candidate: Waiting, record: Record) -> str:
    question = record.question
    assert isinstance(question, TurnQuestion)
    winner = next(c for c in question.candidates if c.request_id == record.answer)
    if winner.rank in question.owed and candidate.rank not in question.owed:
        return f"{CLASSES[winner.rank]} had its floor share to come"
    if winner.rank != candidate.rank:
        return f"{CLASSES[winner.rank]} goes before {CLASSES[candidate.rank]}"
    if winner.served != candidate.served:
        return (
            f"tenant {winner.tenant} has had less service "
            f"({winner.served:,.0f} weighted tokens, {candidate.tenant} {candidate.served:,.0f})"
        )
    if winner.deadline_s != candidate.deadline_s:
        return "its deadline is later"
    return "it came later"


def _busier(copy: Copy) -> str:
    return f"{copy.slots_free} of {copy.slots} slots free" if copy.takes else "too few KV cells are free"


def _dearer(option: Option) -> str:
    victims = evict(option.room)
    if victims is None:
        return "too little memory, whoever may make way"
    if victims:
        return f"{', '.join(victims)} would have had to make way"
    return "not preferred" if option.fits_now else "a model that is on its way out still holds the memory"


def _spared(running: Running, question: PreemptQuestion) -> str:
    if running.rank <= question.rank:
        return "not of a lower class"
    if running.parks >= question.max_parks:
        return f"made way {running.parks} times already"
    if running.owed:
        return "its slot is its class's floor share"
    return f"dearer to continue later: {running.tokens:,} tokens"
