"""The filter, played through as the kernel does it; that the kernel takes it is shown in test_cage.py."""

from __future__ import annotations

import errno
import platform
import struct
import subprocess
import sys
from socket import (
    AF_INET,
    AF_UNIX,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_RAW,
    SOCK_SEQPACKET,
    SOCK_STREAM,
)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends import seccomp

PID = 4242
YES, NO, UNKNOWN = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
IGNORED = 0x00050000
MACHINES = list(seccomp.MACHINES)


def answer(machine: str, number: int, *arguments: int, arch: int | None = None, listens: bool = False) -> int:
    """What becomes of the call with these arguments; those that are not named are 0."""
    steps = seccomp.program(machine, PID, listens=listens)
    arch = seccomp.MACHINES[machine].arch if arch is None else arch
    halves = struct.unpack("=12I", struct.pack("=6Q", *(n % 2**64 for n in (*arguments, 0, 0, 0, 0, 0, 0)[:6])))
    data = {0: number, 4: arch, **{16 + 4 * i: half for i, half in enumerate(halves)}}
    held, at = 0, 0
    for _ in range(len(steps)):  # jumps go forward only
        code, yes, no, value = steps[at]
        at += 1
        match code:
            case 0x20:
                held = data[value]
            case 0x06:
                return value
            case _:
                at += yes if {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code] else no
    raise AssertionError("it has no end")


def denied(machine: str) -> set[int]:
    column = seccomp.MACHINES[machine].column
    listed = (*seccomp.DENIED.values(), seccomp.SOCKETS)
    return {number for calls in listed for number in seccomp.numbers(calls, column)}


def special(machine: str) -> set[int]:
    it = seccomp.MACHINES[machine]
    lists = (seccomp.OWN_ONLY, seccomp.OWN_TURN)
    return {*it[3:], *(number for calls in lists for number in seccomp.numbers(calls, it.column))}


@given(st.sampled_from(MACHINES), st.integers(0, 1000), st.integers(0, 2**32 - 1))
def test_what_is_listed_is_refused_and_nothing_else(machine: str, number: int, first: int) -> None:
    if number not in special(machine):
        assert answer(machine, number, first) == (NO if number in denied(machine) else YES)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_listed_call_is_reached(machine: str) -> None:
    assert {number for number in denied(machine) if answer(machine, number) != NO} == set()
    assert not denied(machine) & special(machine)


@given(st.sampled_from(MACHINES), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_other_doors_are_shut(machine: str, arch: int, number: int) -> None:
    if arch != seccomp.MACHINES[machine].arch:
        assert answer(machine, number, arch=arch) == NO


@given(st.integers(0, 2**30 - 1))
def test_so_is_x32(number: int) -> None:
    assert answer("x86_64", 0x40000000 | number) == NO


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_yes_processes_and_namespaces_no(machine: str) -> None:
    it = seccomp.MACHINES[machine]
    thread = 0x3D0F00  # as glibc asks for one
    assert answer(machine, it.clone, thread) == YES
    assert answer(machine, it.clone, 0x1200011) == NO  # as for fork
    assert answer(machine, it.clone, thread | 0x10000000) == NO  # a user namespace with it
    assert answer(machine, it.clone3) == UNKNOWN  # so that glibc asks by the other call


@given(st.sampled_from(MACHINES), st.integers(0, 2**32 - 1))
def test_signals_and_limits_are_its_own(machine: str, pid: int) -> None:
    it = seccomp.MACHINES[machine]
    for number in seccomp.numbers(seccomp.OWN_ONLY, it.column):
        assert answer(machine, number, PID) == YES
        assert answer(machine, number, pid) == (YES if pid == PID else NO)
        assert answer(machine, number, -1) == NO
    assert answer(machine, it.prlimit64, 0) == answer(machine, it.prlimit64, PID) == YES
    assert answer(machine, it.prlimit64, pid) == (YES if pid in (0, PID) else NO)


@given(st.sampled_from(MACHINES), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_so_are_turns(machine: str, pid: int, which: int) -> None:
    it = seccomp.MACHINES[machine]
    own = pid in (0, PID)
    for number in seccomp.numbers(seccomp.OWN_TURN, it.column):
        assert answer(machine, number, 0) == answer(machine, number, PID) == YES
        assert answer(machine, number, pid) == (YES if own else NO)
    assert answer(machine, it.sched_setaffinity, 0) == answer(machine, it.sched_setaffinity, PID) == YES
    assert answer(machine, it.sched_setaffinity, pid) == (YES if own else IGNORED)
    for number, process in ((it.setpriority, 0), (it.ioprio_set, 1)):
        assert answer(machine, number, process, 0) == answer(machine, number, process, PID) == YES
        assert answer(machine, number, process, pid) == (YES if own else NO)
        assert answer(machine, number, which, 0) == (YES if which == process else NO)


@given(st.sampled_from(MACHINES), st.integers(0, 2**64 - 1))
def test_nothing_is_sent_to_an_address(machine: str, address: int) -> None:
    it = seccomp.MACHINES[machine]
    assert answer(machine, it.sendto, 3, 4096, 1, 0, 0, 0) == YES
    for pointer in (address, address << 32, address % 2**32):
        assert answer(machine, it.sendto, 3, 4096, 1, 0, pointer, 16) == (NO if pointer % 2**64 else YES)


@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize("machine", MACHINES)
def test_pairs_are_connected(machine: str, listens: bool) -> None:
    pair = seccomp.MACHINES[machine].socketpair
    for kind in (SOCK_STREAM, SOCK_SEQPACKET):
        assert answer(machine, pair, AF_UNIX, kind | SOCK_CLOEXEC, listens=listens) == YES
        assert answer(machine, pair, 30, kind, listens=listens) == NO  # TIPC has pairs, too
    for kind in (SOCK_DGRAM, SOCK_RAW):
        assert answer(machine, pair, AF_UNIX, kind | SOCK_NONBLOCK, listens=listens) == NO


@given(st.sampled_from(MACHINES), st.integers(0, 2**16))
def test_no_file_sends_signals(machine: str, command: int) -> None:
    it = seccomp.MACHINES[machine]
    assert answer(machine, it.fcntl, 3, command) == (NO if command in (8, 10, 15) else YES)
    assert answer(machine, it.ioctl, 3, command) == (NO if command in (0x8901, 0x8902) else YES)


@pytest.mark.parametrize("machine", MACHINES)
def test_each_command_that_does_is_known(machine: str) -> None:
    it = seccomp.MACHINES[machine]
    assert {answer(machine, it.fcntl, 3, command) for command in (8, 10, 15)} == {NO}
    assert {answer(machine, it.ioctl, 3, command) for command in (0x8901, 0x8902)} == {NO}
    assert {answer(machine, it.fcntl, 3, command) for command in (1, 3, 4, 1030)} == {YES}


OLD = """
import platform, socket
from inferd.backends import seccomp
it = platform.machine()
seccomp.MACHINES[it] = seccomp.MACHINES[it]._replace(seccomp=9999)
print(seccomp.available())
seccomp.install()
try:
    socket.socket()
except OSError as error:
    print(error.errno)
"""


@pytest.mark.skipif(not seccomp.available(), reason="this kernel has no seccomp")
def test_where_another_filter_hides_the_call_there_is_an_older_one() -> None:
    done = subprocess.run([sys.executable, "-c", OLD], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", str(errno.EPERM)]


def test_what_has_no_numbers_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert not seccomp.available()
    with pytest.raises(OSError, match="not implemented"):
        seccomp.install()


@pytest.mark.parametrize("machine", MACHINES)
def test_who_may_listen_reaches_nobody(machine: str) -> None:
    column = seccomp.MACHINES[machine].column
    socket, bind, listen = seccomp.numbers(seccomp.SOCKETS, column)
    for number in seccomp.numbers(seccomp.DENIED["ways out"], column):
        assert answer(machine, number, listens=True) == NO
    assert {answer(machine, number, listens=True) for number in (bind, listen)} == {YES}
    for kind in (SOCK_STREAM, SOCK_SEQPACKET):
        assert answer(machine, socket, AF_UNIX, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, listens=True) == YES
        assert answer(machine, socket, AF_INET, kind, listens=True) == NO
    for kind in (SOCK_DGRAM, SOCK_RAW):
        assert answer(machine, socket, AF_UNIX, kind | SOCK_CLOEXEC, listens=True) == NO


@given(st.sampled_from(MACHINES), st.integers(0, 1000), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_who_may_listen_may_nothing_else_that_others_may_not(
    machine: str, number: int, first: int, second: int
) -> None:
    if number not in seccomp.numbers(seccomp.SOCKETS, seccomp.MACHINES[machine].column):
        assert answer(machine, number, first, second, listens=True) == answer(machine, number, first, second)
