"""One model's prompt helper, seen from the daemon: text in, tokens out, whatever the template does."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from ...backends.messages import (
    Compile,
    Compiled,
    CompileTools,
    LoadFailed,
    Prepare,
    Prepared,
    PreparedInputs,
    PrepareFailed,
    PrepareInputs,
    Ready,
)
from ...backends.process import prompt_helper
from ..domain.errors import Code, InferdError
from ..domain.form import FIELD as FORM_FIELD
from ..domain.tools import FIELD as TOOLS_FIELD
from ..system.processes import activity
from ..system.workgroups import SPARE_PIDS, UNDIVIDED, Group, Groups

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...backends.exit import Exit
    from ...backends.facts import LoadPlan
    from ...backends.messages import ChatMessage, FromWorker, Tool, ToolUse, ToWorker
    from ...backends.process import Process
    from ..domain.form import Form
    from ..domain.inputs import Inputs
    from ..policy.ledger import Ledger, Reservation

    Reply = Prepared | PreparedInputs | Compiled
    Answer = asyncio.Future[Reply]

log = logging.getLogger(__name__)

PROCESS_BYTES = 96 * 2**20  # python, the library and a large vocabulary
# As much as the helper can have by its own limits (prepare.py), and nothing in files or in the kernel beside it.
GROUP_BYTES = PROCESS_BYTES + 2**30
START_LIMIT_S = 120.0  # until it has read the vocabulary: 0.3 s for 152k words
TIMEOUT_S = 20.0  # for one prompt, from when the helper gets to it

_SERIAL = itertools.count(1)

CODES = {
    "template": Code.TEMPLATE_FAILED,
    "no_template": Code.TEMPLATE_FAILED,
    "limit": Code.INVALID,
    "tokenize": Code.INVALID,
    "grammar": Code.INVALID,
    "unsupported": Code.UNSUPPORTED,
}


class Died(InferdError):
    """The helper, before it had answered."""

    def __init__(self, field: str | None, *, suspect: bool, final: bool) -> None:
        code, when = Code.MODEL_FAILED, " while it was reading the vocabulary"  # with no field: before it was asked
        if field is not None:
            code = Code.TEMPLATE_FAILED if field == "messages" else Code.INVALID
            when = f"; {'its chat template' if field == 'messages' else f'the {field}'} may be at fault"
        super().__init__(code, f"the process that reads prompts for this model ended{when}", field=field)
        self.suspect = suspect  # it may have died of what it was asked
        self.final = final  # it is no use to ask the next one


class Prompter:
    """Starts the helper with the first prompt, and again after it died: a hostile template takes only it down.

    What it was at when it died is asked once more; what waited behind that, as often as others end it.
    """

    def __init__(self, name: str, plan: LoadPlan, ledger: Ledger, groups: Groups = UNDIVIDED) -> None:
        self.name = name
        self.plan = plan
        self.used_s = 0.0  # when it was last asked
        self.owner = ""  # of the reservation
        self._ledger = ledger
        self._groups = groups
        self._group = Group()
        self._process: Process | None = None
        self._opened: asyncio.Future[None] | None = None
        self._reservation: Reservation | None = None
        self._pending: dict[str, tuple[Answer, str]] = {}  # and the field that it is about
        self._turns: deque[str] = deque()  # tickets in the order of their answers; the first is in work
        self._was_stopped = False  # by a signal, when it was looked at last
        self._watch: asyncio.TimerHandle | None = None  # of the first
        self._ids = itertools.count()
        self._n_users = 0
        self._retiring = False
        self._told = False  # to end
        self.on_released: Callable[[], None] = lambda: None  # its bytes are free

    async def prepare(
        self,
        *,
        messages: Sequence[ChatMessage] | None = None,
        prompt: str | None = None,
        tools: tuple[Tool, ...] = (),
    ) -> list[int]:
        """Token ids of a chat (through the model's template) or a plain prompt. Raises InferdError."""
        chat = None if messages is None else list(messages)
        prepared: Prepared = await self._ask(lambda ticket: Prepare(ticket, chat, prompt, tools=tools), "messages")
        return prepared.tokens

    async def inputs(self, texts: list[str], inputs: Inputs) -> PreparedInputs:
        """Token ids of each text, or of the query and each. Raises InferdError."""
        query = inputs.query
        asked = texts, query, inputs.labels == "tag"
        prepared: PreparedInputs = await self._ask(lambda ticket: PrepareInputs(ticket, *asked), inputs.field)
        return prepared

    async def compile(self, form: Form) -> str:
        """A form as the worker understands it. Raises InferdError."""
        compiled: Compiled = await self._ask(lambda ticket: Compile(ticket, form.kind, form.text), FORM_FIELD)
        return compiled.grammar

    async def compile_tools(self, use: ToolUse) -> Compiled:
        """What the worker understands of tools, in the model's way to call them. Raises InferdError."""
        compiled: Compiled = await self._ask(lambda ticket: CompileTools(ticket, use), TOOLS_FIELD)
        return compiled

    async def _ask(self, message: Callable[[str], ToWorker], field: str) -> Any:
        self._n_users += 1
        was_suspect = False
        try:
            while True:
                try:
                    return await self._answer(message, field)
                except Died as died:
                    if died.final or (died.suspect and was_suspect):
                        raise
                    was_suspect |= died.suspect
        finally:
            self._n_users -= 1
            if self._retiring and not self.busy:
                self.close()

    async def _answer(self, message: Callable[[str], ToWorker], field: str) -> Reply:
        self.used_s = asyncio.get_running_loop().time()
        await self._open()
        assert self._process is not None
        ticket = str(next(self._ids))
        answer: Answer = asyncio.get_running_loop().create_future()
        self._pending[ticket] = answer, field
        try:
            self._process.send(message(ticket))
            self._turns.append(ticket)
            if len(self._turns) == 1:
                self._watch_first()
            return await answer
        finally:
            self._pending.pop(ticket, None)

    def _watch_first(self) -> None:
        """Wind up the clock for the one in work. One that nobody waits for any more has its turn all the same."""
        if self._watch is not None:
            self._watch.cancel()
        self._watch = asyncio.get_running_loop().call_later(TIMEOUT_S, self._hangs) if self._turns else None

    def _hangs(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._gone(hangs=True)

    def look(self) -> None:
        """Once a second: one that was stopped by a signal is ended, and what it was at is asked of the next one."""
        stopped = self.pid is not None and activity(self.pid).state == "T"
        if stopped and self._was_stopped:
            log.error("the prompt helper of %s is ended: it was stopped by a signal", self.name)
            self._kill()
        self._was_stopped = stopped

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def retire(self) -> None:
        """End the helper as soon as nobody waits for an answer."""
        self._retiring = True
        if not self.busy:
            self.close()

    def close(self) -> None:
        """End the helper; the next prompt starts a new one."""
        self._retiring = False
        if self._process is not None:
            self._told = True
            self._process.stop()
            self._forget()

    async def wait(self) -> None:
        """Until the helper, if there is one, is reaped."""
        if self._process is not None:
            await self._process.wait()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def open(self) -> bool:
        return self._process is not None

    @property
    def busy(self) -> bool:
        """Somebody waits for an answer."""
        return self._n_users > 0

    async def _open(self) -> None:
        if self._opened is None:
            self._opened = asyncio.ensure_future(self._start())
        opened = self._opened
        try:
            await asyncio.shield(opened)
        except InferdError:
            if self._opened is opened:
                self._opened = None
            raise

    async def _start(self) -> None:
        if self._process is not None:  # an older one is still on its way out
            await self._process.wait()
        self._told = False
        self.owner = f"{self.name}/prompt-{next(_SERIAL)}"  # an older one may still be on its way out
        if (short := self._ledger.shortfall({"host": PROCESS_BYTES})) is not None:
            raise InferdError(
                Code.NO_ROOM,
                f"reading a prompt for {self.name} needs {PROCESS_BYTES >> 20} MiB of memory, "
                f"but only {short.free_bytes >> 20} MiB are free",
                retry_after_ms=5000,
                needed_bytes=PROCESS_BYTES,
                free_bytes=short.free_bytes,
            )
        self._reservation = self._ledger.reserve(self.owner, {"host": PROCESS_BYTES})
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        n_pids = SPARE_PIDS + (os.cpu_count() or 1)  # some libraries begin a thread for each processor
        self._group = self._groups.begin(self.owner, GROUP_BYTES, n_pids)
        self._process = prompt_helper(self._receive, self._gone, self._reaped, self._group.add)
        try:
            await self._process.start(self.plan)
        except OSError as error:
            self._release()
            raise InferdError(Code.INTERNAL, f"no process for {self.name}'s prompts: {error.strerror}") from None
        limit = asyncio.get_running_loop().call_later(START_LIMIT_S, self._kill)
        try:
            await self._ready
        finally:
            limit.cancel()

    def _receive(self, message: FromWorker) -> None:
        match message:
            case Ready():
                assert self._process is not None
                self._process.ready()
                self._ready.set_result(None)
            case LoadFailed(code=code, message=text):
                why = Code.NO_SANDBOX if code == "sandbox" else Code.MODEL_CORRUPT
                failure = InferdError(why, f"{self.name}: {text}")
                self._fail(lambda _ticket, _field: failure)
            case Prepared(id=ticket) | PreparedInputs(id=ticket) | Compiled(id=ticket):
                self._settle(ticket, lambda answer, _: answer.set_result(message))
            case PrepareFailed(id=ticket, code=code, message=text, field=at):
                error = partial(InferdError, CODES[code], f"{self.name}: {text}")
                self._settle(ticket, lambda answer, field: answer.set_exception(error(field=at or field)))
            case other:
                raise AssertionError(f"not from a prompt helper: {other}")

    def _gone(self, *, hangs: bool = False) -> None:
        first = self._turns[0] if self._turns else ""  # dead before the first: all may be at fault
        self._turns.clear()
        self._watch_first()
        self._forget()

        def died(ticket: str, field: str | None) -> InferdError:
            suspect = first in ("", ticket)
            return Died(field, suspect=suspect, final=self._told or (hangs and suspect))

        self._fail(died)

    def _forget(self) -> None:
        """The next prompt needs a new helper; one that is on its way already stays."""
        if self._opened is not None and self._opened.done():
            self._opened = None

    def _reaped(self, how: Exit) -> None:
        if how.held and self._process is not None and self._reservation is not None:
            held = self._ledger.hold(self._reservation, self._process.pid or 0)
            self._process.on_freed = partial(self._ledger.release, held)
            self._reservation = held
        self._release(free=not how.held)

    def _release(self, *, free: bool = True) -> None:
        self._process = None
        self._group.end()
        if self._reservation is not None:
            if free:
                self._ledger.release(self._reservation)
            self._reservation = None
            self.on_released()

    def _fail(self, error: Callable[[str, str | None], InferdError]) -> None:
        """All that wait, each by its ticket and the field that it is about."""
        if not self._ready.done():
            self._ready.set_exception(error("", None))
        for ticket in list(self._pending):

            def fail(answer: Answer, field: str, ticket: str = ticket) -> None:
                answer.set_exception(error(ticket, field))

            self._settle(ticket, fail)

    def _settle(self, ticket: str, settle: Callable[[Answer, str], None]) -> None:
        if self._turns and self._turns[0] == ticket:
            self._turns.popleft()
            self._watch_first()
        answer, field = self._pending.get(ticket, (None, ""))
        if answer is not None and not answer.done():
            settle(answer, field)
