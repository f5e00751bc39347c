"""A model's chat template, rendered as the hostile input it is: sandboxed, within limits of time, memory and output."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .tools import knows_tools, message_dicts, spelled_out, tool_dicts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .messages import ChatMessage, Tool

LIMIT_S = 2.0
OUTPUT_BYTES = 4 * 2**20
POWER_BITS = 4096

Code = Literal["template", "limit"]


class TemplateError(Exception):
    """Rendering failed; the message is fit for a client."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class TimeUp(BaseException):
    """Raised by the alarm; not an Exception, so that nothing in between swallows it."""


class _TooMuch(Exception):
    """A product or a power that only an attack would ask for."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as model authors know it from Hugging Face, without the ways out or the cheap bombs."""

    # Also keeps the compiler from folding such an expression before any limit holds.
    intercepted_binops = frozenset(["*", "**"])

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation])
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda form: datetime.now().strftime(form)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        for many, times in ((left, right), (right, left)):
            if not isinstance(times, int):
                continue
            if operator == "*" and isinstance(many, int) and many.bit_length() + times.bit_length() > POWER_BITS:
                raise _TooMuch
            if operator == "*" and hasattr(many, "__len__") and len(many) * times > OUTPUT_BYTES:
                raise _TooMuch
            if operator == "**" and isinstance(left, int) and left.bit_length() * times > POWER_BITS:
                raise _TooMuch
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; here it only groups."""

    tags = {"generation"}  # noqa: RUF012 -- jinja declares it so

    def parse(self, parser: Any) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class ChatTemplate:
    """One template, compiled when it is first used."""

    def __init__(self, source: str, *, bos_token: str = "", eos_token: str = "") -> None:
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._compiled: jinja2.Template | None = None

    def render(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> str:
        """The prompt up to where the assistant's answer begins. Raises TemplateError."""
        has_calls = any(message.tool_calls for message in messages)
        if not knows_tools(self.source) and (tools or has_calls):
            messages, tools = spelled_out(messages, tools), ()
        given = tool_dicts(tools) if tools else None
        try:
            return self._within_limits(message_dicts(messages), given)
        except TemplateError as error:
            if error.code != "template" or not has_calls:
                raise
            return self._within_limits(message_dicts(messages, parsed=False), given)  # some want arguments as text

    def _within_limits(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        try:
            with time_limit(LIMIT_S):
                return self._render(messages, tools)
        except TimeUp:
            raise TemplateError("limit", f"the chat template took longer than {LIMIT_S:g} s") from None
        except (MemoryError, OverflowError, RecursionError, _TooMuch):
            raise TemplateError("limit", "the chat template asks for too much memory") from None
        except SecurityError:
            raise TemplateError("template", "the chat template does what a template must not do") from None
        except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise TemplateError("template", f"the chat template failed: {str(error)[:200]}") from None

    def _render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        if self._compiled is None:
            self._compiled = Sandbox().from_string(self.source)
        parts, n_bytes = [], 0
        for part in self._compiled.generate(
            messages=messages, tools=tools, documents=None, add_generation_prompt=True, **self._tokens
        ):
            n_bytes += len(part)  # characters first: encoding a huge part would cost as much again
            if n_bytes > OUTPUT_BYTES:
                raise TemplateError("limit", f"the rendered prompt is longer than {OUTPUT_BYTES} bytes")
            parts.append(part)
        return "".join(parts)


@contextmanager
def time_limit(limit_s: float) -> Iterator[None]:
    """Raises TimeUp when the block takes longer; between two Python instructions, not inside of C."""

    def ring(*_: object) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    # Jinja's own filter escapes for HTML, which a prompt is not.
    return json.dumps(value, ensure_ascii=False, indent=indent)
