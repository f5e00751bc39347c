"""The cage: real children try what they may not, each also outside of it, and real engines work inside."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferd.backends import cage, kinds, landlock, process, seccomp
from inferd.backends.engine import LoadError
from inferd.backends.facts import Adapter, Batching, LoadPlan
from inferd.backends.messages import Finished, Infer, LoadFailed, Ready, SamplingParams, Step, Submit
from inferd.backends.tensors import Tensor
from inferd.tests.models.random_onnx import affine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from inferd.backends.messages import FromWorker, ToWorker

HERE = cage.abilities()
pytestmark = pytest.mark.skipif(not HERE.whole, reason=f"this kernel has no whole cage: {HERE}")

FAKE = LoadPlan(backend="fake", path="", n_ctx=256, n_slots=1, kv_cells=256, n_threads=1)
LIMIT_S = 60.0

# Says of each attempt how it ended: "ok", or the error's name.
CHILD = """
import ctypes, errno, fcntl, json, mmap, os, platform, resource, signal, socket, struct, sys, threading

plan, own, other, folder, parent = sys.argv[1:]
import msgspec
from inferd.backends import cage, child
from inferd.backends.facts import LoadPlan

child.humble()
told = cage.close_in(msgspec.json.decode(plan, type=LoadPlan))
libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"
parent = int(parent)

def call(x86, arm, *arguments):
    if libc.syscall(ctypes.c_long(arm if ARM else x86), *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), "")

def fork():
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)

def spawn():
    os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", ":"], {}), 0)

def replaced():
    os.execv("/no/such/program", ["x"])

def legacy():
    with mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as code:
        code.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")  # getpid, by the door for 32-bit programs
        told = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
        if told < 0:
            raise OSError(-told, "")

def x32():
    call(0x40000000 | 39, 0)

def thread():
    one = threading.Thread(target=int)
    one.start()
    one.join()

def reached():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [b"f"], [0])
        _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
        os.close(fds[0])

def pair(kind):
    for end in socket.socketpair(socket.AF_UNIX, kind):
        end.close()

def addressed():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.sendto(b"x", os.path.join(folder, "socket"))

def message(kind):
    # One that has a connection reaches nobody by an address, where the filter cannot look.
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        try:
            ours.sendmsg([b"x"], [], 0, os.path.join(folder, "socket"))
        except OSError as error:
            return
        assert theirs.recv(1) == b"x"

def owned(command, who):
    fcntl.fcntl(0, command, who)

def socket_owned(command):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fcntl.ioctl(ours, command, struct.pack("i", parent))

def priority(which, who):
    os.setpriority(which, who, os.getpriority(which, who))

ATTEMPTS = {
    "own": lambda: open(own, "rb").read(1),
    "memory": lambda: open("/proc/meminfo").read(),
    "itself": lambda: open("/proc/self/status").read(),
    "module": lambda: __import__("sqlite3"),
    "thread": thread,
    "reached": reached,
    "memfd": lambda: os.close(os.memfd_create("x")),
    "null": lambda: open("/dev/null", "wb").write(b"x"),
    "own signal": lambda: os.kill(os.getpid(), 0),
    "own priority": lambda: priority(os.PRIO_PROCESS, 0),
    "own cores": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    "own turn": lambda: os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0)),
    "stream pair": lambda: pair(socket.SOCK_STREAM),
    "stream message": lambda: message(socket.SOCK_STREAM),
    "packet message": lambda: message(socket.SOCK_SEQPACKET),
    "own limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)),
    "other": lambda: open(other, "rb"),
    "secret": lambda: open(os.path.join(folder, "tokens")),
    "users": lambda: open("/etc/passwd"),
    "folder": lambda: os.listdir(folder),
    "home": lambda: os.listdir(os.path.expanduser("~")),
    "parent": lambda: open(f"/proc/{parent}/status"),
    "through itself": lambda: open("/proc/self/root" + os.path.realpath(other)),
    "write own": lambda: open(own, "ab"),
    "write new": lambda: open(os.path.join(folder, "new"), "wb"),
    "write temp": lambda: open(f"/tmp/inferd-cage-{os.getpid()}", "wb"),
    "write shared": lambda: open(f"/dev/shm/inferd-cage-{os.getpid()}", "wb"),
    "make folder": lambda: os.mkdir(os.path.join(folder, "made")),
    "mode": lambda: os.chmod(own, 0o600),
    "times": lambda: os.utime(own),
    "inet": lambda: socket.socket(socket.AF_INET).close(),
    "inet6": lambda: socket.socket(socket.AF_INET6).close(),
    "unix": lambda: socket.socket(socket.AF_UNIX).close(),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "datagram pair": lambda: pair(socket.SOCK_DGRAM),
    "address": addressed,
    "messages": lambda: call(307, 269, -1, 0, 0, 0),
    "owner": lambda: owned(fcntl.F_SETOWN, parent),
    "owner ex": lambda: owned(15, struct.pack("ii", 1, parent)),
    "its signal": lambda: owned(fcntl.F_SETSIG, signal.SIGKILL),
    "socket owner": lambda: socket_owned(0x8901),
    "socket group": lambda: socket_owned(0x8902),
    "priority": lambda: priority(os.PRIO_PROCESS, parent),
    "priorities": lambda: priority(os.PRIO_USER, 0),
    "disk priority": lambda: call(251, 30, 1, parent, 2 << 13 | 4),
    "turn": lambda: os.sched_setscheduler(parent, os.SCHED_OTHER, os.sched_param(0)),
    "turn's place": lambda: os.sched_setparam(parent, os.sched_param(0)),
    "names": lambda: call(294, 26, 0),
    "fork": fork,
    "spawn": spawn,
    "exec": replaced,
    "signal": lambda: os.kill(parent, 0),
    "limit": lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE),
    "ptrace": lambda: call(101, 117, 0x4206, parent, 0, 0),
    "read memory": lambda: call(310, 270, parent, 0, 0, 0, 0, 0),
    "uring": lambda: call(425, 425, 0, 0),
    "keys": lambda: call(250, 219, 0, -3, 0),
    "space": lambda: call(272, 97, 0),
    "legacy": legacy,
    "x32": x32,
}
outcomes = {}
for name, attempt in ATTEMPTS.items():
    try:
        attempt()
        outcomes[name] = "ok"
    except OSError as error:
        outcomes[name] = errno.errorcode.get(error.errno, str(error.errno))
core = resource.getrlimit(resource.RLIMIT_CORE)
with open("/proc/self/oom_score_adj") as file:
    oom = int(file.read())
os.write(1, json.dumps({"told": told, "outcomes": outcomes, "core": core, "oom": oom}).encode())
"""

ALLOWED = [
    *("own", "memory", "itself", "module", "thread", "reached", "memfd", "null", "own signal", "own limit"),
    *("own priority", "own cores", "own turn", "stream pair", "stream message", "packet message"),
]
REFUSED = {
    **dict.fromkeys(["other", "secret", "users", "folder", "home", "parent", "through itself"], "EACCES"),
    **dict.fromkeys(["write own", "write new", "write temp", "write shared", "make folder"], "EACCES"),
    **dict.fromkeys(["mode", "times", "inet", "inet6", "unix", "netlink", "fork", "spawn", "exec"], "EPERM"),
    **dict.fromkeys(["signal", "limit", "ptrace", "read memory", "uring", "keys", "space"], "EPERM"),
    **dict.fromkeys(["datagram pair", "address", "messages", "owner", "owner ex", "its signal"], "EPERM"),
    **dict.fromkeys(["socket owner", "socket group", "priority", "priorities", "disk priority", "turn"], "EPERM"),
    **dict.fromkeys(["turn's place", "names"], "EPERM"),
    **({"legacy": "EPERM", "x32": "EPERM"} if platform.machine() == "x86_64" else {}),
}
ODD = {"exec": {"ENOENT"}, "ptrace": {"ok", "EIO", "EPERM"}, "read memory": {"ok"}, "x32": {"ok", "ENOSYS"}}
ODD |= {"messages": {"EBADF"}, "priorities": {"ok", "EACCES"}}
ODD |= {"uring": {"EINVAL", "EFAULT", "ENOSYS", "EPERM"}, "keys": {"ok", "ENOSYS"}, "legacy": {"ok", "ENOSYS"}}


def tried(folder: Path, sandbox: str) -> dict[str, Any]:
    """What one child says of all attempts."""
    own, other = folder / "own.gguf", folder / "other.gguf"
    plan = msgspec.structs.replace(FAKE, path=str(own), files=(str(own),), sandbox=sandbox)
    arguments = [msgspec.json.encode(plan).decode(), str(own), str(other), str(folder), str(os.getpid())]
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, *arguments], capture_output=True, timeout=LIMIT_S, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cage")
    for name in ("own.gguf", "other.gguf", "tokens"):
        (path / name).write_bytes(b"x")
    return path


@pytest.fixture(scope="module")
def inside(folder: Path) -> dict[str, Any]:
    return tried(folder, "auto")


@pytest.fixture(scope="module")
def outside(folder: Path) -> dict[str, Any]:
    try:
        return tried(folder, "off")
    finally:
        for path in (*Path("/tmp").glob("inferd-cage-*"), *Path("/dev/shm").glob("inferd-cage-*")):
            path.unlink()


@pytest.mark.parametrize("what", ALLOWED)
def test_what_a_worker_needs_is_left(inside: dict[str, Any], what: str) -> None:
    assert inside["outcomes"][what] == "ok"


@pytest.mark.parametrize("what", REFUSED)
def test_what_it_does_not_need_is_taken_away(inside: dict[str, Any], what: str) -> None:
    assert inside["outcomes"][what] == REFUSED[what]


@pytest.mark.parametrize("what", REFUSED)
def test_and_would_work_without(outside: dict[str, Any], what: str) -> None:
    assert outside["outcomes"][what] in ODD.get(what, {"ok"})


def test_it_is_the_first_to_go_and_leaves_no_image_of_itself(inside: dict[str, Any]) -> None:
    assert (inside["told"], inside["core"], inside["oom"] >= 500) == (str(HERE), [0, 0], True)


def test_off_means_off(outside: dict[str, Any]) -> None:
    assert outside["told"] == "off"


AFFINITY = """
import os, sys
from inferd.backends import cage
from inferd.backends.facts import LoadPlan

cage.close_in(LoadPlan(backend="fake", path="", n_ctx=1, n_slots=1, kv_cells=1, n_threads=1, sandbox=sys.argv[2]))
pid = int(sys.argv[1])
os.sched_setaffinity(pid, {min(os.sched_getaffinity(pid))})
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core only")
def test_others_keep_their_cores() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        cores = os.sched_getaffinity(other.pid)
        for sandbox, left in (("auto", cores), ("off", {min(cores)})):
            arguments = [sys.executable, "-P", "-c", AFFINITY, str(other.pid), sandbox]
            subprocess.run(arguments, check=True, timeout=LIMIT_S, cwd="/")
            assert os.sched_getaffinity(other.pid) == left


# which files


def test_all_files_of_a_plan_are_its_own() -> None:
    adapter = Adapter("a", "/m/a.gguf", 1, "1")
    plan = msgspec.structs.replace(FAKE, backend="llama", path="/m/x", files=("/m/1", "/m/2"), adapters=(adapter,))
    assert cage.files_of(plan) == ["/m/1", "/m/2", "/m/a.gguf"]
    assert cage.files_of(msgspec.structs.replace(plan, files=(), adapters=())) == ["/m/x"]
    assert cage.files_of(FAKE) == []


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "gone"])
def test_what_is_no_file_any_more_is_not_loaded(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.gguf"
    match kind:
        case "link":
            path.symlink_to("/etc/passwd")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    with pytest.raises(LoadError) as caught:
        cage._open_file(str(path))
    assert caught.value.code == "corrupt"
    assert str(tmp_path) not in str(caught.value)


def test_a_link_in_the_way_is_as_bad(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "m.gguf").touch()
    (tmp_path / "link").symlink_to("real")
    os.close(cage._open_file(str(tmp_path / "real" / "m.gguf")))
    with pytest.raises(LoadError):
        cage._open_file(str(tmp_path / "link" / "m.gguf"))


# what is told


class Child:
    """A real worker and what it says."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[FromWorker | None] = asyncio.Queue()
        self.process = process.worker(self.said.put_nowait, lambda: self.said.put_nowait(None), lambda _: None)

    async def load(self, plan: LoadPlan) -> Ready:
        await self.process.start(plan)
        ready: Ready = await self.until(Ready)
        self.process.ready()
        return ready

    async def until(self, kind: type[Any]) -> Any:
        async with asyncio.timeout(LIMIT_S):
            while not isinstance(message := await self.said.get(), kind):
                assert message is not None, list(self.process.tail)
                assert not isinstance(message, LoadFailed), message
            return message

    async def finish(self, order: ToWorker) -> Finished:
        self.process.send(order)
        while True:
            step: Step = await self.until(Step)
            if ends := [event for event in step.events if isinstance(event, Finished)]:
                return ends[0]

    async def close(self) -> None:
        self.process.stop()
        await self.process.wait()


@pytest.fixture
async def child() -> AsyncIterator[Child]:
    it = Child()
    yield it
    await it.close()


def asked(prompt: list[int]) -> Submit:
    return Submit("job", 1, prompt, len(prompt), SamplingParams(max_tokens=8, ignore_eos=True))


async def test_the_fake_engine_works_inside(child: Child) -> None:
    assert (await child.load(FAKE)).cage == str(HERE)
    assert (await child.finish(asked(list(b"fake:tokens=9")))).completion_tokens == 8


@pytest.mark.llama
@pytest.mark.parametrize("pinned", [False, True])
async def test_llama_works_inside(child: Child, pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if pinned:  # OpenMP pins each of its threads, and ends the process where it may not
        monkeypatch.setenv("OMP_PROC_BIND", "true")
    facts = kinds.read_facts(Path(cage.ROOT) / "llama" / "demo.gguf")
    plan = msgspec.structs.replace(FAKE, backend="llama", path=facts.path, files=facts.files, numerics="exact")
    plan = msgspec.structs.replace(plan, n_threads=2)
    assert (await child.load(plan)).cage == str(HERE)
    assert (await child.finish(asked([1, 2, 3]))).completion_tokens == 8


@pytest.mark.llama
async def test_another_models_file_does_not_load(child: Child, tmp_path: Path) -> None:
    """The engine is told of one file, and the cage of another."""
    own = tmp_path / "own.gguf"
    own.touch()
    copy = shutil.copy(Path(cage.ROOT) / "llama" / "demo.gguf", tmp_path / "copy.gguf")
    plan = msgspec.structs.replace(FAKE, backend="llama", path=str(copy), files=(str(own),), sandbox="auto")
    await child.process.start(plan)
    async with asyncio.timeout(LIMIT_S):
        while not isinstance(message := await child.said.get(), LoadFailed):
            assert not isinstance(message, Ready)
    assert await _loads(msgspec.structs.replace(plan, sandbox="off"))


async def _loads(plan: LoadPlan) -> bool:
    it = Child()
    try:
        return (await it.load(plan)).cage == "off"
    finally:
        await it.close()


async def test_onnx_works_inside(child: Child, tmp_path: Path) -> None:
    facts = kinds.read_facts(affine(tmp_path / "affine.onnx"))
    changes: dict[str, Any] = {"backend": "onnx", "task": "infer", "batching": Batching(8)}
    plan = msgspec.structs.replace(FAKE, path=facts.path, files=facts.files, **changes)
    assert (await child.load(plan)).cage == str(HERE)
    tensors = [Tensor(port.name, port.datatype, [1, 4], 16) for port in facts.inputs]
    order = Infer("job", 1, tensors, [port.name for port in facts.outputs], bytes(16 * len(tensors)))
    end = await child.finish(order)
    assert (end.reason.value, end.error) == ("stop", "")


def test_what_is_required_and_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*, listens: bool) -> None:
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(landlock, "abi", lambda: 0)
    monkeypatch.setattr(seccomp, "install", gone)
    with pytest.raises(LoadError, match="required") as caught:
        cage.close_in(msgspec.structs.replace(FAKE, sandbox="required"))
    assert caught.value.code == "sandbox"
    assert cage.close_in(FAKE) == "none"


async def test_what_a_child_is_told_of_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("HF_TOKEN", "OPENAI_API_KEY", "INFERD_ADDRESS", "DB_PASSWORD", "CREDENTIALS_DIRECTORY")
    needed = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS", "KEYBOARD")
    told = process.environment(FAKE, dict.fromkeys((*secrets, *needed), "x"))
    assert set(needed) <= set(told)
    assert not set(secrets) & set(told)


def test_a_socket_can_be_made_here() -> None:
    """Else the tests above would show nothing."""
    socket.socket(socket.AF_INET).close()
