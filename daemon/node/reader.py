"""Prompts become tokens while their requests wait: text through the model's helper, then the limits are checked."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import secrets
import string
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from ..domain.errors import Code, InferdError
from ..domain.inputs import check_lengths
from ..domain.model import check_fits
from ..domain.request import check_bias_tokens, check_tokens
from ..policy.calls import CallParser

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...backends.messages import CallSyntax, ToolUse
    from ..domain.inputs import Inputs
    from ..domain.model import Model
    from ..domain.request import Job, Request
    from .deployment import Deployment
    from .node import Node
    from .prompter import Prompter

    T = TypeVar("T")

log = logging.getLogger(__name__)
# Some chat templates take ids of calls only if they have nine letters and digits.
ID_CHARS, ID_LENGTH = string.ascii_letters + string.digits, 9
TOKENS_AT_ONCE = 1 << 16


class Reader:
    """One task for each prompt; it ends in `Node.on_prepared` or `Node.fail_queued`."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, job: Job, deployment: Deployment) -> None:
        task = asyncio.create_task(self._prepare(job, deployment), name=f"prepare {job.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _prepare(self, job: Job, deployment: Deployment) -> None:
        request = job.request
        try:
            prompter, form, use = deployment.prompter, request.form, request.tools
            if request.inputs is not None:
                each, seconds = await self._read_inputs(job, request.inputs, prompter)
                await _check_inputs(request.inputs, each, deployment.model)
                if job.live:
                    job.lengths, job.seconds = [len(tokens) for tokens in each], seconds
                    job.prompt = list(chain.from_iterable(each))
                    self.node.on_prepared(job)
                return
            if request.tokens is not None:
                tokens = list(request.tokens)
            else:
                tools = use.tools if use is not None else ()
                ask = partial(prompter.prepare, messages=request.messages, prompt=request.prompt, tools=tools)
                tokens = await self._read(job, ask)
            _check(request, tokens, deployment.model)
            if form is not None and job.live:
                job.grammar = await self._read(job, partial(prompter.compile, form))
            if use is not None and job.live:
                compiled = await self._read(job, partial(prompter.compile_tools, use))
                job.grammar, job.syntax = compiled.grammar, compiled.calls
                job.calls = call_parser(use, job.syntax, lasting_ids(job.id) if job.durable else _call_id)
            if job.live:
                _take(job, tokens, deployment.model)
                self.node.on_prepared(job)
        except InferdError as error:
            self.node.fail_queued(job, error)
        except Exception:
            log.exception("%s: preparing the prompt failed", job.id)
            self.node.fail_queued(job, InferdError(Code.INTERNAL, "the prompt could not be prepared"))

    async def _read_inputs(self, job: Job, inputs: Inputs, prompter: Prompter) -> tuple[list[list[int]], list[int]]:
        """The tokens of each, and of pairs where their second part begins. Raises InferdError."""
        texts = [item for item in inputs.items if isinstance(item, str)]
        if not texts:
            return [item for item in inputs.items if not isinstance(item, str)], []
        prepared = await self._read(job, partial(prompter.inputs, texts, inputs))
        job.offsets = prepared.offsets[0] if prepared.offsets else []
        read = iter(prepared.inputs)
        return [next(read) if isinstance(item, str) else item for item in inputs.items], prepared.seconds

    async def _read(self, job: Job, ask: Callable[[], Awaitable[T]]) -> T:
        """What the helper says; who waits for a cold model's memory waits for its helper's, too. Raises InferdError."""
        node = self.node
        while True:
            change = node.changes.next()
            try:
                return await ask()
            except InferdError as error:
                waits = job.live and not node.scheduler.lanes[job.request.model].slots
                if error.code is not Code.NO_ROOM or not waits:
                    raise
            await change


def call_parser(use: ToolUse, syntax: CallSyntax | None, new_id: Callable[[], str]) -> CallParser | None:
    """What finds the calls in an answer; None where none may come."""
    if syntax is None or use.choice == "none":
        return None
    return CallParser(syntax, {tool.name for tool in use.tools}, new_id)


def _call_id() -> str:
    return "".join(secrets.choice(ID_CHARS) for _ in range(ID_LENGTH))


def lasting_ids(job_id: str) -> Callable[[], str]:
    """The same ones in the same order, whenever an answer is read anew."""
    numbers = itertools.count()

    def new_id() -> str:
        digest = hashlib.blake2b(f"{job_id} {next(numbers)}".encode()).digest()
        return "".join(ID_CHARS[byte % len(ID_CHARS)] for byte in digest[:ID_LENGTH])

    return new_id


async def _check_inputs(inputs: Inputs, each: list[list[int]], model: Model) -> None:
    """Inputs have lengths now. Raises InferdError."""
    check_lengths(inputs, [len(tokens) for tokens in each], model)
    n_checked = 0
    for i, (item, tokens) in enumerate(zip(inputs.items, each, strict=True)):
        if not isinstance(item, str):
            check_tokens(f"{inputs.field}[{i}].tokens", tokens, model.facts.n_vocab)
            n_checked += len(tokens)
            if n_checked >= TOKENS_AT_ONCE:
                n_checked = 0
                await asyncio.sleep(0)  # there may be millions, and others wait for the loop


def _check(request: Request, tokens: list[int], model: Model) -> None:
    """The prompt has a length now: what cannot be taken is not worth compiling for. Raises InferdError."""
    check_fits(request, len(tokens), model)
    check_tokens("tokens", request.tokens or (), model.facts.n_vocab)
    check_bias_tokens(request.params.logit_bias, model.facts.n_vocab)


def _take(job: Job, tokens: list[int], model: Model) -> None:
    """The plan may be another one since the check. Raises InferdError."""
    check_fits(job.request, len(tokens), model)
    room = model.plan.n_ctx - len(tokens)
    job.prompt = tokens
    job.max_tokens = min(job.request.max_tokens or room, room)
