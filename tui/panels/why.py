"""Everything about one request: where it is, why, until when, and what was decided about it."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from .. import words
from ..cells import wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...protos import inferd_pb2 as pb
    from ..cells import Cell, Line
    from ..state import State

    Records = Sequence[pb.DecisionRecord]


# What was asked -> (the method, what stands for what only its client knows)
METHODS: dict[str, tuple[str, dict[str, object]]] = {
    "generate": ("Generate", {"prompt": "..."}),
    "embed": ("Embed", {"inputs": [{"text": "..."}]}),
    "rank": ("Rerank", {"query": "...", "documents": ["..."]}),
}


def place(request: pb.RequestState, state: State) -> str:
    """Where it stands, in one sentence."""
    if request.state == "running":
        where = f" on {', '.join(request.devices)}" if request.devices else ""
        if not request.tokens and request.task == "generate":
            return f"runs{where}: its prompt is being computed, no token yet"
        rate = f" at {words.rate(request.tokens_per_s)} tokens/s" if request.tokens_per_s > 0 else ""
        return f"runs{where}{rate}"
    if request.state == "parking":
        return "makes way: it waits again as soon as its worker has let go of it"
    n_waiting = next((m.waiting for m in state.snapshot.models if m.name == request.model), 0) if state.snapshot else 0
    turn = (
        f"number {request.position + 1} of {n_waiting} in line for {request.model}"
        if request.HasField("position")
        else "waits"
    )
    if request.HasField("eta_high_ms"):
        turn += f"; first token expected in {words.eta(request.eta_low_ms, request.eta_high_ms)}"
    return turn


def brief(request: pb.RequestState, state: State, records: Records, width: int, height: int) -> list[Line]:
    """Below a table: why it waits first, then its figures, then the last decisions while there is room."""
    lines: list[Line] = []
    reason = request.why_text or request.why
    if request.state != "running" and reason:
        head, *rest = wrapped(f"{request.id} waits: {reason}", width, "warn")
        lines += [head, *rest]
    lines += wrapped(place(request, state), width)
    lines += wrapped(" | ".join(figures(request)), width, "dim")
    room = height - len(lines)
    return (lines + decisions(records, width)[-room:] if room > 0 else lines)[:height]


def figures(request: pb.RequestState) -> list[str]:
    has = request.HasField
    prompt = f"prompt {request.prompt_tokens:,} tokens" if has("prompt_tokens") else "prompt not read yet"
    found = [
        f"{request.priority} | {request.tenant} | {request.model}",
        prompt + (f" ({request.cached_tokens:,} cached)" if request.cached_tokens else ""),
        f"output {request.tokens:,}" + (f" of at most {request.max_tokens:,}" if request.max_tokens else ""),
        f"first token after {words.ms(request.ttft_ms)}" if has("ttft_ms") else "",
        f"arrived {words.span(request.age_ms / 1e3)} ago",
        f"lost its slot {request.moves} times" if request.moves else "",
        f"deadline in {words.span(request.deadline_in_ms / 1e3)}" if has("deadline_in_ms") else "",
        f"its client has taken nothing for {words.ms(request.stalled_ms)}" if request.stalled_ms >= 1000 else "",
    ]
    return [words.plain(fact) for fact in found if fact]


def decisions(records: Records, width: int) -> list[Line]:
    """Oldest first: how long ago, what was decided."""
    lines: list[Line] = []
    for record in records:
        ago: Cell = (f"{words.span(record.age_ms / 1e3):>6} ago  ", "dim")
        kind: Cell = (f"{record.kind:<8} ", "accent")
        text = wrapped(record.summary, max(10, width - 21)) or [(("", ""),)]
        lines.append((ago, kind, *text[0]))
        lines += [((" " * 21, ""), *more) for more in text[1:]]
    return lines


def as_command(request: pb.RequestState, address: str) -> str:
    """The request as one would send it again; what it asked is its client's own and not known here."""
    body: dict[str, object] = {"model": request.model, "priority": request.priority.upper()}
    method, asked = METHODS.get(request.task, METHODS["generate"])
    body |= asked
    if method == "Generate" and request.max_tokens:
        body["max_tokens"] = request.max_tokens
    path = address.removeprefix("unix:")
    where = [address] if path == address else ["-unix", path]
    tenant = ["-H", f"inferd-tenant: {request.tenant}"]
    parts = ["grpcurl", "-plaintext", *tenant, "-d", json.dumps(body), *where, f"inferd.v1.Inference/{method}"]
    return shlex.join(parts)
