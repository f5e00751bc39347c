"""protobuf to words and back: the only place that knows both."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from ...backends.messages import FinishReason, SamplingParams
from ...protos import inferd_pb2 as pb
from ..domain.errors import Code, InferdError
from ..domain.form import Form, check_form
from ..domain.request import (
    MAX_ID_CHARS,
    MAX_MESSAGES,
    Priority,
    Request,
    check_logit_bias,
    check_range,
    check_stop,
)
from ..domain.tensors import Outputs
from ..domain.tools import check_calls, check_n_calls
from ..node import stream as words
from ..policy import explain
from .tools import to_call_deltas, to_message, to_tool_use

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...backends.messages import ChatMessage
    from ..domain.model import Model
    from ..node.planner import LoadReport
    from ..policy.journal import Record
    from ..system.catalog import Entry

PRIORITY = {
    pb.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    pb.INTERACTIVE: Priority.INTERACTIVE,
    pb.NORMAL: Priority.NORMAL,
    pb.BATCH: Priority.BATCH,
}
FINISH_REASON = {
    FinishReason.STOP: pb.STOP,
    FinishReason.LENGTH: pb.LENGTH,
    FinishReason.CANCELLED: pb.CANCELLED,
    FinishReason.TOOL_CALLS: pb.TOOL_CALLS,
}
ROLES = ("system", "user", "assistant", "tool", "developer")


# requests


def to_requests(wire: pb.GenerateRequest, tenant: str, said: dict[str, Any] | None = None) -> list[Request]:
    """One Request per completion asked for. Raises InferdError naming the first wrong field.

    `said`: what it says of itself, where that came by another door.
    """
    params = _params(wire)
    if wire.HasField("max_tokens"):
        check_range("max_tokens", wire.max_tokens)
    messages, prompt, tokens = _input(wire)
    tools = to_tool_use(wire)
    request = Request(
        **(said or envelope(wire, tenant)),
        params=params,
        prompt=prompt,
        messages=messages,
        tokens=tokens,
        max_tokens=wire.max_tokens if wire.HasField("max_tokens") else None,
        session_id=_key(wire, "session_id"),
        run_id=_key(wire, "run_id"),
        supersede_key=_key(wire, "supersede_key"),
        form=_form(wire.response_format),
        tools=tools,
        lora=_key(wire, "lora"),
    )
    n = wire.sampling.n if wire.sampling.HasField("n") else 1
    return [request] if n == 1 else [_choice(request, i) for i in range(n)]


def envelope(wire: pb.GenerateRequest | pb.EmbedRequest | pb.RerankRequest, tenant: str) -> dict[str, Any]:
    """What all requests say of themselves, as fields of a Request."""
    if not wire.model:
        raise InferdError(Code.INVALID, "model is missing", field="model")
    if wire.HasField("deadline_ms"):
        check_range("deadline_ms", wire.deadline_ms)
    return {
        "id": _id(wire.request_id),
        "model": wire.model,
        "priority": to_priority(wire.priority),
        "tenant": tenant,
        "deadline_ms": wire.deadline_ms if wire.HasField("deadline_ms") else None,
    }


def to_priority(wire: pb.Priority.ValueType, *, must: bool = False) -> Priority:
    """Where none is named it is the highest, unless one `must` be. Raises InferdError."""
    if wire not in PRIORITY or (must and wire == pb.PRIORITY_UNSPECIFIED):
        text = f"priority must be INTERACTIVE, NORMAL or BATCH, not {wire}"
        raise InferdError(Code.INVALID, text, field="priority")
    return PRIORITY[wire]


def _choice(request: Request, i: int) -> Request:
    """The i-th completion: its own draws from the same seed."""
    if i == 0:
        return request
    params = msgspec.structs.replace(request.params, seed=(request.params.seed + i) % 2**64)
    return replace(request, id=f"{request.id}.{i}", parent_id=request.id, choice=i, params=params)


def _form(wire: pb.ResponseFormat) -> Form | None:
    match wire.WhichOneof("format"):
        case "json_object" if wire.json_object:
            return Form("json_object")
        case "json_schema":
            return check_form(Form("json_schema", wire.json_schema))
        case "grammar":
            return check_form(Form("grammar", wire.grammar))
        case _:
            return None


def _params(wire: pb.GenerateRequest) -> SamplingParams:
    given: dict[str, float] = {}
    for field, value in wire.sampling.ListFields():
        if field.name != "logit_bias":
            given[field.name] = value
            if field.name not in ("seed", "ignore_eos"):
                check_range(field.name, value)
    given.pop("n", None)
    given.setdefault("seed", secrets.randbits(63))
    bias = dict(wire.sampling.logit_bias)
    check_logit_bias(bias)
    check_stop(wire.stop)
    return SamplingParams(max_tokens=0, logit_bias=bias, stop=tuple(wire.stop), **given)  # type: ignore[arg-type]


def _input(wire: pb.GenerateRequest) -> tuple[list[ChatMessage] | None, str | None, list[int] | None]:
    match wire.WhichOneof("input"):
        case "prompt":
            return None, to_prompt(wire.prompt), None
        case "messages":
            return to_messages(wire.messages), None, None
        case "tokens":
            if not wire.tokens.ids:
                raise InferdError(Code.INVALID, "tokens is empty", field="tokens")
            return None, None, list(wire.tokens.ids)
        case _:
            raise InferdError(Code.INVALID, "one of prompt, messages or tokens must be given", field="prompt")


def to_prompt(text: str) -> str:
    if not text:
        raise InferdError(Code.INVALID, "prompt is empty", field="prompt")
    return text


def to_messages(wire: pb.Messages) -> list[ChatMessage]:
    """Raises InferdError for no or too many messages, a role nobody knows, or calls that are none."""
    n = len(wire.messages)
    if not 1 <= n <= MAX_MESSAGES:
        raise InferdError(
            Code.INVALID,
            f"messages must have 1 to {MAX_MESSAGES} entries, not {n}",
            field="messages",
            highest=MAX_MESSAGES,
        )
    for i, message in enumerate(wire.messages):
        if message.role not in ROLES:
            text = f"messages[{i}].role must be one of {', '.join(ROLES)}, not {message.role[:32]!r}"
            raise InferdError(Code.INVALID, text, field=f"messages[{i}].role")
    check_n_calls([len(message.tool_calls) for message in wire.messages])
    messages = [to_message(message) for message in wire.messages]
    check_calls(messages)
    return messages


def _key(wire: pb.GenerateRequest, name: str) -> str:
    """A name that the client chose and the daemon keeps."""
    given: str = getattr(wire, name)
    if len(given) > MAX_ID_CHARS:
        text = f"{name} must have at most {MAX_ID_CHARS} characters, not {len(given)}"
        raise InferdError(Code.INVALID, text, field=name, highest=MAX_ID_CHARS)
    return given


def _id(given: str) -> str:
    if len(given) > MAX_ID_CHARS or not (given.isprintable() and given.isascii()):
        text = f"request_id must be at most {MAX_ID_CHARS} printable ASCII characters"
        raise InferdError(Code.INVALID, text, field="request_id", highest=MAX_ID_CHARS)
    return given or f"r{secrets.token_hex(6)}"


# answers


def to_response(event: words.StreamEvent, choice: int = 0) -> pb.GenerateResponse:
    match event:
        case words.Text():
            delta = pb.Delta(index=event.index, text=event.text, tokens=event.tokens, choice=choice)
            if event.calls:
                delta.tool_calls.extend(to_call_deltas(event.calls))
            for entry in event.logprobs or ():
                top = [pb.Logprob(token=t, logprob=p, text=s) for t, p, s in entry.top]
                delta.logprobs.add(token=entry.token, logprob=entry.logprob, text=entry.text, top=top)
            return pb.GenerateResponse(delta=delta)
        case words.Queued():
            queued = pb.Queued(request_id=event.request_id, position=event.position, why=event.why)
            if event.eta_ms is not None:
                queued.eta_low_ms, queued.eta_high_ms = event.eta_ms
            return pb.GenerateResponse(queued=queued)
        case words.Started():
            started = pb.Started(
                request_id=event.request_id,
                model=event.model,
                prompt_tokens=event.prompt_tokens,
                cached_tokens=event.cached_tokens,
                device=event.device,
                seed=event.seed,
            )
            return pb.GenerateResponse(started=started)
        case words.Resumed():
            return pb.GenerateResponse(resumed=pb.Resumed(why=event.why))
        case words.Finished():
            reason = FINISH_REASON[event.reason]
            finished = pb.Finished(finish_reason=reason, usage=usage(event), timings=timings(event), choice=choice)
            return pb.GenerateResponse(finished=finished)
        case words.Vectors() | Outputs():
            raise AssertionError("vectors and tensors are no part of a text")


def usage(event: words.Finished) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=event.prompt_tokens,
        cached_tokens=event.cached_tokens,
        completion_tokens=event.completion_tokens,
    )


def timings(event: words.Finished) -> pb.Timings:
    return pb.Timings(
        queue_ms=event.queue_ms,
        ttft_ms=event.ttft_ms,
        tpot_ms=event.tpot_ms,
        itl_max_ms=event.itl_max_ms,
        e2e_ms=event.e2e_ms,
        prefill_ms=event.prefill_ms,
        decode_ms=event.decode_ms,
        draft_n=event.draft_n,
        draft_n_accepted=event.draft_n_accepted,
    )


def to_model_info(
    entry: Entry, model: Model | None, adapters: Iterable[str] = (), aliases: Iterable[str] = ()
) -> pb.ModelInfo:
    info = pb.ModelInfo(name=entry.name, file_bytes=entry.file_bytes, error=entry.error or "", adapters=adapters)
    info.aliases.extend(aliases)
    info.state = model.state.value if model is not None else ("cold" if entry.facts else "failed")
    if (facts := entry.facts) is not None:
        info.backend = facts.backend
        info.architecture = facts.architecture
        info.quantization = facts.quantization
        info.parameters = facts.n_params
        info.context_tokens = facts.n_ctx_train
        info.layers = facts.n_layers
        info.heads = facts.n_heads
        info.vocabulary = facts.n_vocab
        info.chat = facts.has_chat_template
        info.pooling = facts.pooling
        info.task = facts.task if model is None else model.plan.task
        info.dimensions = facts.n_embd_out if facts.pooling not in ("", "rank") else 0
    if model is not None and model.error:
        info.error = model.error
    return info


def to_plan(report: LoadReport) -> pb.PlanLoadResponse:
    """Field for field; what holds memory is summed over its pools."""
    wire = pb.PlanLoadResponse(
        model=report.model,
        outcome=report.outcome,
        devices=report.devices,
        victims=report.victims,
        message=report.message,
        change=report.change,
        notes=report.notes,
    )
    if report.load_ms is not None:
        wire.load_ms = report.load_ms
    wire.pools.extend(pb.PoolPlan(pool=p, needed_bytes=need, free_bytes=free) for p, need, free in report.pools)
    for holder in report.holders:
        n_bytes = sum(holder.bytes_on.values())
        wire.holders.add(model=holder.model, bytes=n_bytes, stays=holder.stays, cost=holder.cost)
    return wire


def to_explanation(request_id: str, records: Sequence[Record], now_s: float) -> pb.ExplainResponse:
    """Questions and answers as JSON, since every kind has its own."""
    wire = pb.ExplainResponse(request_id=request_id)
    for record in records:
        wire.records.add(
            age_ms=(now_s - record.at_s) * 1e3,
            kind=record.kind,
            model=record.model,
            inputs=msgspec.json.encode(record.question).decode(),
            chosen=msgspec.json.encode(record.answer).decode(),
            rejected=msgspec.json.encode(explain.rejected(record)).decode(),
            summary=explain.sentence(record, request_id),
        )
    return wire
