"""What a child may no longer ask of the kernel: a seccomp filter, written as the kernel reads it.

What is asked for in vain fails with EPERM, and nothing is killed: a driver that only tries its luck goes on without.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

# Of each call its number on x86_64 and on aarch64; "-": it has none there.
DENIED = {
    "ways out": "connect 42 203, accept 43 202, accept4 288 242, sendmmsg 307 269",
    "calls past this filter": "io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427",
    "other programs": "execve 59 221, execveat 322 281, fork 57 -, vfork 58 -",
    "other processes": "ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440,"
    " process_mrelease 448 448, pidfd_open 434 434, pidfd_getfd 438 438, pidfd_send_signal 424 424, kcmp 312 272,"
    " tkill 200 130",
    "memory of other processes": "shmget 29 194, shmat 30 196, shmctl 31 195, msgget 68 186, msgsnd 69 189,"
    " msgrcv 70 188, msgctl 71 187, semget 64 190, semop 65 193, semtimedop 220 192, semctl 66 191, mq_open 240 180,"
    " mq_unlink 241 181",
    # Landlock looks at what is opened; this tells names of files in folders that cannot be.
    "what others do with files": "inotify_init 253 -, inotify_init1 294 26, inotify_add_watch 254 27",
    # Landlock looks at what is opened, and a file's mode and owner are changed by its name.
    "whose a file is": "chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, chown 92 -, fchown 93 55,"
    " lchown 94 -, fchownat 260 54, utime 132 -, utimes 235 -, utimensat 280 88, futimesat 261 -, setxattr 188 5,"
    " lsetxattr 189 6, fsetxattr 190 7, removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16,"
    " setxattrat 463 463, removexattrat 466 466, file_setattr 469 469",
    "the view of the machine": "unshare 272 97, setns 308 268, mount 165 40, umount2 166 39, pivot_root 155 41,"
    " chroot 161 51, open_tree 428 428, move_mount 429 429, fsopen 430 430, fsconfig 431 431, fsmount 432 432,"
    " fspick 433 433, mount_setattr 442 442, open_tree_attr 467 467, open_by_handle_at 304 265, fanotify_init 300 262",
    "the kernel": "keyctl 250 219, add_key 248 217, request_key 249 218, bpf 321 280, perf_event_open 298 241,"
    " userfaultfd 323 282, kexec_load 246 104, kexec_file_load 320 294, init_module 175 105, finit_module 313 273,"
    " delete_module 176 106, reboot 169 142, swapon 167 224, swapoff 168 225, acct 163 89, quotactl 179 60,"
    " quotactl_fd 443 443, syslog 103 116, settimeofday 164 170, clock_settime 227 112, clock_adjtime 305 266,"
    " adjtimex 159 171, sethostname 170 161, setdomainname 171 162, iopl 172 -, ioperm 173 -, modify_ldt 154 -,"
    " vhangup 153 58, nfsservctl 180 42",
}
SOCKETS = "socket 41 198, bind 49 200, listen 50 201"
OWN_ONLY = "kill 62 129, tgkill 234 131, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240"  # of this process alone
OWN_TURN = "sched_setscheduler 144 119, sched_setparam 142 118, sched_setattr 314 274"  # 0 is the thread that asks
OWNERS_OF_FILES = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX of fcntl(2): to whom a signal goes, and which
OWNERS_OF_SOCKETS = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP of ioctl(2)

_LOAD, _IS, _AT_LEAST, _HAS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # of classic BPF
_NUMBER_AT, _ARCH_AT, _FIRST_AT, _SECOND_AT = 0, 4, 16, 24  # in struct seccomp_data; of arguments their lower halves
_ADDRESS_AT = (48, 52)  # the fifth argument, both halves
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_X32 = 0x40000000  # calls of that kind have this bit in their number
_CLONE_THREAD, _CLONE_NEW = 0x00010000, 0x7E020000  # of clone(2): a thread; a namespace of any kind
_UNIX, _UNCONNECTED = 1, 2  # of socket(2): this family, and this bit, which datagrams and raw sockets have
_PROCESS, _IO_PROCESS = 0, 1  # whose priority, of setpriority(2) and of ioprio_set(2)
_SET_FILTER = 1  # of seccomp(2)
_ALL_THREADS, _KEEP_SPECULATION = 1, 4  # without the latter, kernels before 5.16 slow everything down
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2  # of prctl(2)

Step = tuple[int, int, int, int]  # code, how far to jump when it holds, when it does not, value
_YES, _NO = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE | errno.EPERM)
_AS_IF_DONE = (_RETURN, 0, 0, _REFUSE)  # it does nothing, and says that it has
_ABSENT = (_RETURN, 0, 0, _REFUSE | errno.ENOSYS)


class _Machine(NamedTuple):
    column: int  # of the numbers above
    arch: int  # as the kernel calls it in a filter
    seccomp: int
    clone: int
    clone3: int
    prlimit64: int
    sendto: int
    socketpair: int
    fcntl: int
    ioctl: int
    setpriority: int
    ioprio_set: int
    sched_setaffinity: int


MACHINES = {
    "x86_64": _Machine(0, 0xC000003E, 317, 56, 435, 302, 44, 53, 72, 16, 141, 251, 203),
    "aarch64": _Machine(1, 0xC00000B7, 277, 220, 435, 261, 206, 199, 25, 29, 140, 30, 122),
}


def numbers(calls: str, column: int) -> list[int]:
    """Of the calls in such a list, on the machine with that column."""
    found = [call.split()[1 + column] for call in calls.split(",")]
    return [int(number) for number in found if number != "-"]


def program(machine: str, pid: int, *, listens: bool = False) -> list[Step]:
    """The filter of the process `pid`. Raises KeyError for a machine whose numbers nobody has written down.

    `listens`: it may make Unix sockets that listen, and none that reach anybody.
    """
    it = MACHINES[machine]
    sockets = numbers(SOCKETS, it.column)
    steps = [(_LOAD, 0, 0, _ARCH_AT), (_IS, 1, 0, it.arch), _NO, (_LOAD, 0, 0, _NUMBER_AT)]
    if machine == "x86_64":
        steps += [(_AT_LEAST, 0, 1, _X32), _NO]
    steps += _often(it)
    # Its flags lie in memory, where no filter can look; without it the C library falls back to clone.
    steps += _rule(it.clone3, [_ABSENT])
    steps += _rule(
        it.clone, [(_LOAD, 0, 0, _FIRST_AT), (_HAS, 0, 1, _CLONE_NEW), _NO, (_HAS, 1, 0, _CLONE_THREAD), _NO]
    )
    for number in (it.socketpair, *sockets[:listens]):
        connected = [(_LOAD, 0, 0, _SECOND_AT), (_HAS, 0, 1, _UNCONNECTED), _NO]
        steps += _rule(number, _must(_FIRST_AT, (_UNIX,)), connected)
    steps += _own(it, pid)
    denied = [number for calls in DENIED.values() for number in numbers(calls, it.column)]
    denied += [] if listens else sockets
    n = len(denied)
    return [*steps, *((_IS, n - i, 0, number) for i, number in enumerate(denied)), _YES, _NO]


def _often(it: _Machine) -> list[Step]:
    """What is asked for all the time comes first.

    sendmsg names its address in memory, where no filter can look. But no socket without a connection can be made here,
    and one with a connection ignores it or fails.
    """
    return [
        *_rule(it.sendto, *(_must(half, (0,)) for half in _ADDRESS_AT)),
        *_rule(it.ioctl, _must_not(_SECOND_AT, OWNERS_OF_SOCKETS)),
        *_rule(it.fcntl, _must_not(_SECOND_AT, OWNERS_OF_FILES)),
    ]


def _own(it: _Machine, pid: int) -> list[Step]:
    """Signals, limits and turns: of this process, and of no other one."""
    own = (0, pid)
    steps = [step for number in numbers(OWN_ONLY, it.column) for step in _rule(number, _must(_FIRST_AT, (pid,)))]
    for number in (it.prlimit64, *numbers(OWN_TURN, it.column)):
        steps += _rule(number, _must(_FIRST_AT, own))
    for number, which in ((it.setpriority, _PROCESS), (it.ioprio_set, _IO_PROCESS)):
        steps += _rule(number, _must(_FIRST_AT, (which,)), _must(_SECOND_AT, own))
    # OpenMP pins its threads, where it is told to, as it begins them, and ends the process if that fails. A thread's
    # number says nothing of whose it is, so they are begun and not pinned.
    return steps + _rule(it.sched_setaffinity, _must(_FIRST_AT, own, _AS_IF_DONE))


def _rule(number: int, *parts: list[Step]) -> list[Step]:
    """What holds for one call: it is let through when it gets past all parts."""
    body = [*(step for part in parts for step in part), _YES]
    return [(_IS, 0, len(body), number), *body]


def _must(at: int, values: Sequence[int], otherwise: Step = _NO) -> list[Step]:
    """Past this comes what has one of the values there."""
    n = len(values)
    return [(_LOAD, 0, 0, at), *((_IS, n - i, 0, value) for i, value in enumerate(values)), otherwise]


def _must_not(at: int, values: Sequence[int]) -> list[Step]:
    """Past this comes what has none of the values there."""
    last = len(values) - 1
    return [(_LOAD, 0, 0, at), *((_IS, last - i, int(i == last), value) for i, value in enumerate(values)), _NO]


def available() -> bool:
    """The kernel takes filters, and this machine's numbers are known."""
    if platform.machine() not in MACHINES:
        return False
    ctypes.CDLL(None, use_errno=True).prctl(_SET_SECCOMP, _FILTER, None, 0, 0)
    return ctypes.get_errno() == errno.EFAULT  # it has looked for one where there is none


def install(*, listens: bool = False) -> None:
    """For all threads of this process, and for good. Raises OSError."""
    it = MACHINES.get(platform.machine())
    if it is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    steps = program(platform.machine(), os.getpid(), listens=listens)
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    given = _Program(len(steps), ctypes.addressof(buffer))
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    for flags in (_ALL_THREADS | _KEEP_SPECULATION, _ALL_THREADS):
        call = [ctypes.c_long(n) for n in (it.seccomp, _SET_FILTER, flags)]
        if libc.syscall(*call, ctypes.byref(given)) == 0:
            return
    # A service's own filter may know this older way alone; it is for this thread, and what comes of it.
    if libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(given), 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class _Program(ctypes.Structure):
    """sock_fprog."""

    _fields_ = (("n_steps", ctypes.c_ushort), ("steps", ctypes.c_void_p))
