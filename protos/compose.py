"""From Python arguments to a GenerateRequest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from . import inferd_pb2 as pb
from .compose_tools import json_text, set_tool_choice, set_tools, to_message
from .errors import InferdError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

M = TypeVar("M")


class GenerateOptions(TypedDict, total=False):
    """Every option of `generate`; one that is None is left to the daemon."""

    raw: bool  # a str is the prompt itself, not a chat message
    system: str | None  # goes before the messages
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repeat_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    logit_bias: Mapping[int, float] | None
    logprobs: int | None
    ignore_eos: bool | None
    min_tokens: int | None
    n: int | None
    stop: str | Sequence[str] | None
    response_format: str | Mapping[str, Any] | None  # text, json_object, {"json_schema": ...}, {"grammar": ...}
    tools: Sequence[Mapping[str, Any]] | None  # {"name", "description", "parameters"} each, or as OpenAI has them
    tool_choice: str | Mapping[str, Any] | None  # auto, none, required, or {"function": name}
    parallel_tool_calls: bool | None
    priority: str | None  # interactive, normal, batch
    deadline_ms: int | None
    session_id: str | None
    run_id: str | None
    supersede_key: str | None
    request_id: str | None
    lora: str | None  # one of the model's LoRA adapters


class PullOptions(TypedDict, total=False):
    """Every option of `pull`; one that is None is left to the daemon."""

    revision: str | None  # a branch, tag or commit
    name: str | None  # what requests will call it
    sha256: str | None  # in hex: what the file must have


SPECIAL: dict[str, Callable[[pb.GenerateRequest, Any], None]]  # at the end: options that are not one scalar
SAMPLING = frozenset(pb.Sampling.DESCRIPTOR.fields_by_name) - {"logit_bias"}
PLAIN = frozenset(
    {"max_tokens", "deadline_ms", "session_id", "run_id", "supersede_key", "request_id", "parallel_tool_calls", "lora"}
)


def generate_request(model: str, prompt: Any, options: GenerateOptions) -> pb.GenerateRequest:
    """Build the request. A value no field can hold is InferdError("invalid"), an unknown option a TypeError."""
    request = pb.GenerateRequest()
    _put(request, "model", model)
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    raw, system = bool(given.pop("raw", False)), given.pop("system", None)
    guarded("prompt", lambda: _set_input(request, prompt, raw=raw, system=system))
    request.priority = pb.INTERACTIVE
    for name, value in given.items():
        if name in SAMPLING:
            _put(request.sampling, name, value)
        elif name in PLAIN:
            _put(request, name, value)
        elif name in SPECIAL:
            guarded(name, lambda name=name, value=value: SPECIAL[name](request, value))  # type: ignore[misc]
        else:
            raise TypeError(f"generate() has no option {name!r}")
    return request


def plain_request(kind: Callable[[], M], **fields: Any) -> M:
    """A message with those fields that are not None. A value that a field cannot hold is InferdError("invalid")."""
    message = kind()
    for name, value in fields.items():
        if value is not None:
            _put(message, name, value)
    return message


def pull_request(repo: str, file: str, options: PullOptions) -> pb.PullModelRequest:
    """Build the request."""
    return plain_request(pb.PullModelRequest, repo=repo, file=file, **options)


def tokenize_request(model: str, prompt: Any) -> pb.TokenizeRequest:
    """Build the request: a str is a plain prompt, anything else a chat."""
    request = plain_request(pb.TokenizeRequest, model=model)
    if isinstance(prompt, str):
        _put(request, "prompt", prompt)
    else:
        guarded("prompt", lambda: request.messages.messages.extend(_messages(prompt)))
    return request


def priority_request(request_id: str, priority: str) -> pb.SetPriorityRequest:
    """Build the request; a class that nobody knows is InferdError("invalid")."""
    request = plain_request(pb.SetPriorityRequest, request_id=request_id)
    guarded("priority", lambda: set_priority(request, priority))
    return request


def _set_input(request: pb.GenerateRequest, prompt: Any, *, raw: bool, system: str | None) -> None:
    if isinstance(prompt, str):
        if raw:
            if system is not None:
                raise InferdError("invalid", "system needs a chat, not a raw prompt", details={"field": "system"})
            request.prompt = prompt
            return
        prompt = [{"role": "user", "content": prompt}]
    elif len(prompt) > 0 and all(isinstance(token, int) for token in prompt):
        request.tokens.ids.extend(prompt)
        return
    if system is not None:
        prompt = [{"role": "system", "content": system}, *prompt]
    request.messages.messages.extend(_messages(prompt))


def _messages(prompt: Iterable[Mapping[str, Any]]) -> list[pb.Message]:
    return [to_message(message) for message in prompt]


def _set_stop(request: pb.GenerateRequest, stop: str | Sequence[str]) -> None:
    request.stop.extend([stop] if isinstance(stop, str) else stop)


def set_priority(
    request: pb.GenerateRequest | pb.EmbedRequest | pb.RerankRequest | pb.SetPriorityRequest, priority: str
) -> None:
    names = {"interactive": pb.INTERACTIVE, "normal": pb.NORMAL, "batch": pb.BATCH}
    if priority not in names:
        raise ValueError(f"it must be one of {', '.join(names)}, not {priority!r}")
    request.priority = names[priority]


def _set_logit_bias(request: pb.GenerateRequest, bias: Mapping[int, float]) -> None:
    request.sampling.logit_bias.update(bias)


def _set_response_format(request: pb.GenerateRequest, wanted: str | Mapping[str, Any]) -> None:
    form = request.response_format
    if isinstance(wanted, str):
        if wanted not in ("text", "json_object"):
            raise ValueError(f"it must be text, json_object, json_schema or grammar, not {wanted!r}")
        setattr(form, wanted, True)
        return
    ((kind, value),) = wanted.items()
    if kind == "json_schema":
        form.json_schema = json_text(value)
    elif kind == "grammar":
        form.grammar = value
    else:
        raise ValueError(f"it must be json_schema or grammar, not {kind!r}")


SPECIAL = {
    "stop": _set_stop,
    "priority": set_priority,
    "logit_bias": _set_logit_bias,
    "response_format": _set_response_format,
    "tools": set_tools,
    "tool_choice": set_tool_choice,
}


def _put(message: Any, name: str, value: Any) -> None:
    guarded(name, lambda: setattr(message, name, value))


def guarded(name: str, put: Callable[[], object]) -> None:
    """Name the field when protobuf or a setter will not take its value."""
    try:
        put()
    except KeyError as error:
        raise _invalid(name, f"{error.args[0]!r} is missing") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise _invalid(name, str(error)) from None


def _invalid(name: str, why: str) -> InferdError:
    return InferdError("invalid", f"{name}: {why}", details={"field": name})
