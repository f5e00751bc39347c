"""One worker held from outside: spawn it, talk to it, know when it is gone and why."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import sys
from collections import deque
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from . import memfd, pulse
from .blob import Blob
from .channel import AsyncChannel
from .exit import Exit, is_dead
from .messages import Dropped, Given, Kept, Load, Stop, decode_from_worker, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .facts import LoadPlan
    from .messages import FromWorker, Run, ToWorker
    from .pulse import Signs

log = logging.getLogger(__name__)

WORKER = "inferd.backends.worker"
TAIL_LINES = 40
KILL_AFTER_S = 2.0  # a worker in mid-kernel needs a moment; some drivers keep a ghost of one killed at once
UNKILLABLE_S = 10.0  # after SIGKILL: what is still there is held by the kernel, as in state D
LOOK_AGAIN_S = 1.0  # before that is believed

CHILD_ENVIRONMENT = {
    "GGML_NO_BACKTRACE": "1",  # ggml would fork a debugger on abort
    # Huge pages for what malloc maps, where the kernel gives them on request (measured: 1 % faster decoding).
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}

# OpenMP threads spin at barriers, and on cores that others want, too, they crawl. Workers share the cores, and then the
# default is best; one that must keep its threads spins for so short a time that it gets on with others (DESIGN.md).
SHORT_SPIN = {"GOMP_SPINCOUNT": "2000"}


# Nothing that a child needs is called so; what it is told of the world may end up in what it says.
SECRET = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|KEY)(S?_|S?$)|^INFERD_|^NOTIFY_SOCKET$")


class WorkerState(Enum):
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    GONE = "gone"


NEXT: dict[WorkerState, set[WorkerState]] = {
    WorkerState.STARTING: {WorkerState.READY, WorkerState.STOPPING, WorkerState.GONE},
    WorkerState.READY: {WorkerState.STOPPING, WorkerState.GONE},
    WorkerState.STOPPING: {WorkerState.GONE},
    WorkerState.GONE: set(),
}


class Process:
    """A child that speaks frames: a worker, or a prompt helper (`module` says which).

    `on_spawned` gets its pid before it is told anything.
    `on_message` gets each message on the event loop. `on_gone` is called once, as soon as the channel ends;
    `on_reaped` once, after the process is surely dead, so that its memory is free; or when the kernel holds it, which
    calls `on_freed` when it lets it go. None is called before `start` returns.
    """

    def __init__(
        self,
        module: str,
        on_message: Callable[[FromWorker], None],
        on_gone: Callable[[], None],
        on_reaped: Callable[[Exit], None],
        on_spawned: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.module = module
        self.state = WorkerState.STARTING
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._on_message = on_message
        self._on_gone = on_gone
        self._on_reaped = on_reaped
        self._on_spawned = on_spawned
        self._ended = asyncio.Event()
        self._over = asyncio.Event()  # on_reaped was called
        self._looked = asyncio.Event()  # SIGKILL has had its time
        self._killed = self._held = False
        self.freed = False  # `on_freed` was called
        self.on_freed: Callable[[], None] = lambda: None
        self._channel: AsyncChannel | None = None
        self._shelf: socket.socket | None = None  # the way of files with computed prompts, see shelf.py
        self._pulse_fd = -1  # the page with its signs of life, see pulse.py
        self._child: asyncio.subprocess.Process | None = None
        self._life: asyncio.Task[None] | None = None

    async def start(self, plan: LoadPlan) -> None:
        """Exec the child and send it its plan. Raises OSError when no process can be made."""
        ours, theirs = socket.socketpair()
        self._shelf, their_shelf = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._shelf.setblocking(False)
        passed = {"--fd": theirs.fileno()}
        if self.module == WORKER:
            self._pulse_fd = pulse.create()
            passed |= {"--shelf-fd": their_shelf.fileno(), "--pulse-fd": self._pulse_fd}
        try:
            self._child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", self.module, *(str(part) for pair in passed.items() for part in pair)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=tuple(passed.values()),
                env=environment(plan, os.environ),
            )
        except OSError:
            ours.close()
            self._close_files()
            raise
        finally:
            theirs.close()
            their_shelf.close()
        self._on_spawned(self._child.pid)
        self._channel = await AsyncChannel.open(ours, self._receive, self._end)
        self.send(Load(plan))
        if self.state is WorkerState.STOPPING:  # told to end before there was a channel to say so
            self.send(Stop())
        self._life = asyncio.create_task(self._live(), name=f"{self.module}[{self.pid}]")

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def signs(self) -> Signs | None:
        """What it last showed of being alive; None of a helper, and of one that is gone."""
        return None if self._pulse_fd < 0 else pulse.read(self._pulse_fd)

    def send(self, message: ToWorker) -> None:
        """Queue a message; nothing happens when the child is gone, on_gone tells that."""
        if self._channel is not None:
            self._channel.send(encode(message))

    def give(self, runs: Sequence[tuple[Run, int]], missing: Sequence[bytes] = ()) -> bool:
        """Hand over runs of computed blocks with their files, which stay open here, and say what is not to be had.

        False when the worker takes no files: then it computes what it asked for.
        """
        taken = True
        for start in range(0, max(1, len(runs)), memfd.MAX_FDS):
            part = runs[start : start + memfd.MAX_FDS]
            if part and self._shelf is not None:
                try:
                    memfd.send(self._shelf, [fd for _, fd in part])
                except OSError:
                    missing, part, taken = [*missing, *(name for run, _ in part for name in run.names)], [], False
            self.send(Given([run for run, _ in part], list(missing)))
            missing = ()
        return taken

    def take(self, run: Run) -> int | None:
        """The file of a run that the worker keeps, checked; None when it is not what the worker says."""
        try:
            assert self._shelf is not None
            (fd,) = memfd.receive(self._shelf, 1)
        except OSError as error:
            log.warning("%s[%s] a file did not come: %s", self.module, self.pid, error)
            return None
        try:
            memfd.readable(fd, run.n_bytes).close()
        except (OSError, ValueError) as error:
            log.warning("%s[%s] %s", self.module, self.pid, error)
            os.close(fd)
            return None
        return fd

    def send_blob(self, blob: Blob) -> bool:
        """The file of a long one, for the frame that follows; False when the worker takes no more files now."""
        if blob.fd is None:
            return True
        assert self._shelf is not None
        try:
            memfd.send(self._shelf, [blob.fd])
        except OSError:
            return False
        return True

    def take_blob(self, n_bytes: int, data: bytes | None) -> Blob:
        """What a frame brought, or the file that came before it. One that did not come has no bytes to read."""
        if data is not None:
            return Blob(n_bytes, data=data)
        try:
            assert self._shelf is not None
            (fd,) = memfd.receive(self._shelf, 1)
        except OSError as error:
            log.warning("%s[%s] a file did not come: %s", self.module, self.pid, error)
            return Blob(n_bytes, data=b"")
        if not memfd.is_whole(fd, n_bytes):
            log.warning("%s[%s] a file is not of the %d bytes that it should have", self.module, self.pid, n_bytes)
            os.close(fd)
            return Blob(n_bytes, data=b"")
        return Blob(n_bytes, fd=fd)

    def ready(self) -> None:
        self._move(WorkerState.READY)

    def stop(self) -> None:
        """Ask it to end; kill it when it does not within KILL_AFTER_S."""
        if self.state in (WorkerState.STARTING, WorkerState.READY):
            self._move(WorkerState.STOPPING)
            self.send(Stop())
            asyncio.get_running_loop().call_later(KILL_AFTER_S, self.kill)

    def kill(self) -> None:
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
            if not self._killed:
                self._killed = True
                asyncio.get_running_loop().call_later(UNKILLABLE_S, self._look)

    async def wait(self) -> None:
        """Until it is reaped, or to be had no more."""
        if self._life is not None:
            await self._over.wait()

    def _look(self, *, again: bool = False) -> None:
        """Some time after SIGKILL; we may have stood still ourselves, and it with us. It will not close its channel."""
        if self.pid is None or self._over.is_set():
            return
        if not is_dead(self.pid):
            if not again:
                asyncio.get_running_loop().call_later(LOOK_AGAIN_S, partial(self._look, again=True))
                return
            log.error("%s[%s] is not ended by SIGKILL: the kernel holds it", self.module, self.pid)
            self._held = True
        self._end()
        self._looked.set()

    def _move(self, to: WorkerState) -> None:
        if to not in NEXT[self.state]:
            raise AssertionError(f"{self.module}[{self.pid}]: {self.state.value} -> {to.value}")
        self.state = to

    def _receive(self, frame: bytes) -> None:
        message = decode_from_worker(frame)
        # One that is told to end still says what it leaves.
        if self.state in (WorkerState.STARTING, WorkerState.READY) or type(message) in (Kept, Dropped):
            self._on_message(message)

    def _end(self) -> None:
        self._ended.set()

    async def _live(self) -> None:
        """The child's whole life: its log, the end of its channel, its death."""
        assert self._child is not None
        reading = asyncio.create_task(self._read_log(), name="log")
        try:
            await self._ended.wait()
            expected = self.state is WorkerState.STOPPING
            self._move(WorkerState.GONE)
            self._on_gone()
            # The channel closes a moment before the process is gone, or for good when the child broke it.
            if not await self._is_over(KILL_AFTER_S):
                self.kill()
                await self._is_over(None)
            if not self._held:
                self._close_files()
                with contextlib.suppress(TimeoutError):  # a grandchild may hold its log open
                    await asyncio.wait_for(asyncio.gather(reading, self._child.wait()), 1.0)
            code = self._child.returncode
            self._on_reaped(Exit(-signal.SIGKILL if code is None else code, expected, tuple(self.tail), self._held))
        finally:
            self._over.set()
        if self._held:
            await self._child.wait()
            self._close_files()
            self.freed = True
            self.on_freed()

    async def _is_over(self, limit_s: float | None) -> bool:
        """It is dead, or SIGKILL has had its time; within the limit, if there is one."""
        assert self._child is not None
        both = [asyncio.create_task(wait) for wait in (self._child.wait(), self._looked.wait())]
        try:
            done, _ = await asyncio.wait(both, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
        return bool(done)

    def _close_files(self) -> None:
        if self._shelf is not None:
            self._shelf.close()
        if self._pulse_fd >= 0:
            os.close(self._pulse_fd)
            self._pulse_fd = -1

    async def _read_log(self) -> None:
        assert self._child is not None
        assert self._child.stderr is not None
        rest = b""
        while data := await self._child.stderr.read(1 << 14):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-4096:]
            for line in lines:
                text = line[:500].decode(errors="replace")
                self.tail.append(text)
                log.debug("%s[%s] %s", self.module, self.pid, text)
        if rest:
            self.tail.append(rest[:500].decode(errors="replace"))


def environment(plan: LoadPlan, ours: Mapping[str, str]) -> dict[str, str]:
    """A child's: ours, which wins, without what is nobody else's business."""
    kept = {name: value for name, value in ours.items() if not SECRET.search(name.upper())}
    return {**CHILD_ENVIRONMENT, **(SHORT_SPIN if plan.numerics == "exact" else {}), **kept}


def worker(
    on_message: Callable[[FromWorker], None],
    on_gone: Callable[[], None],
    on_reaped: Callable[[Exit], None],
    on_spawned: Callable[[int], None] = lambda _: None,
) -> Process:
    """The process that holds a model's weights."""
    return Process(WORKER, on_message, on_gone, on_reaped, on_spawned)


def prompt_helper(
    on_message: Callable[[FromWorker], None],
    on_gone: Callable[[], None],
    on_reaped: Callable[[Exit], None],
    on_spawned: Callable[[int], None] = lambda _: None,
) -> Process:
    """The process that holds a model's vocabulary and template."""
    return Process("inferd.backends.prepare", on_message, on_gone, on_reaped, on_spawned)
