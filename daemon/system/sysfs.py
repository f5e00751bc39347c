"""Reading the kernel's small files: whatever is missing or garbled is None, nothing raises."""

from __future__ import annotations

import os
import re
from contextlib import suppress

MAX_BYTES = 256 * 1024
_MAX_CPUS = 1 << 16  # a garbled list such as 0-99999999999 must not eat the memory


class Root:
    """The file system as seen from `INFERD_SYSROOT`; paths are given without a leading slash."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = os.fspath(path or os.environ.get("INFERD_SYSROOT") or "/").rstrip("/")

    @property
    def real(self) -> bool:
        """Whether this is the running system itself: only then may live calls stand in for files."""
        return not self.path

    def at(self, path: str) -> str:
        return f"{self.path}/{path}"

    def raw(self, path: str, limit: int = MAX_BYTES) -> bytes | None:
        try:
            descriptor = os.open(self.at(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError):
            return None
        chunks = []
        try:
            # One read gives at most a page of a seq_file, so go on until it is empty.
            while limit > 0 and (chunk := os.read(descriptor, limit)):
                chunks.append(chunk)
                limit -= len(chunk)
        except OSError:  # amdgpu answers EBUSY or EINVAL from sensors of a sleeping card
            return None
        finally:
            os.close(descriptor)
        return b"".join(chunks)

    def text(self, path: str, limit: int = MAX_BYTES) -> str | None:
        content = self.raw(path, limit)
        return None if content is None else content.decode("utf-8", "replace").strip("\x00 \t\r\n")

    def integer(self, path: str) -> int | None:
        return parse_int(self.text(path, 64))

    def names(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(self.at(path)), key=natural)
        except (OSError, ValueError):
            return []

    def exists(self, path: str) -> bool:
        return os.path.exists(self.at(path))

    def target(self, path: str) -> str | None:
        """The last part of what a link finally points to: a driver's name, a PCI address."""
        with suppress(OSError, ValueError):
            if os.path.lexists(self.at(path)):
                return os.path.basename(os.path.realpath(self.at(path)))
        return None


def parse_int(text: str | None) -> int | None:
    """Decimal or 0x hexadecimal, within 64 bits; anything else is None."""
    match = re.fullmatch(r"\s*(-?(?:0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}))\s*", text or "", re.ASCII)
    if match is None:
        return None
    value = int(match[1], 16 if "x" in match[1].lower() else 10)
    return value if -(1 << 63) <= value < 1 << 64 else None


def parse_cpus(text: str | None) -> tuple[int, ...] | None:
    """A kernel CPU list such as `0-3,8,10-11`; None when it is not one."""
    if text is None:
        return None
    cpus: set[int] = set()
    for part in text.strip().split(",") if text.strip() else ():
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part, re.ASCII)
        if match is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= _MAX_CPUS:
            return None
        cpus.update(range(first, last + 1))
    return tuple(sorted(cpus))


def parse_table(text: str | None, separator: str | None = None) -> dict[str, str]:
    """`key value` or `key: value` lines; the first of equal keys wins, other lines are skipped."""
    table: dict[str, str] = {}
    for line in (text or "").splitlines():
        parts = line.split(separator, 1)
        if len(parts) == 2:
            table.setdefault(parts[0].strip(), parts[1].strip())
    return table


def parse_pci(text: str | None) -> str | None:
    """A PCI address in the kernel's form: NVML's `00000000:01:00.0` becomes `0000:01:00.0`."""
    match = re.fullmatch(
        r"\s*(?:([0-9a-f]{1,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])\s*", (text or "").lower(), re.ASCII
    )
    if match is None:
        return None
    return f"{int(match[1] or '0', 16):04x}:{match[2]}:{match[3]}.{match[4]}"


def natural(name: str) -> tuple[object, ...]:
    """Sorts card2 before card10."""
    parts = re.split(r"(\d+)", name, flags=re.ASCII)
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts))
