"""The models on disk: scans the folders, names what it finds, and keeps the facts of unchanged files.

Everything in a folder may be hostile. Only regular files count, and no link may lead out of all folders.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

from ...backends.facts import Adapter, CorruptModel, ModelFacts
from ...backends.kinds import adapter_bytes, is_model_file, model_files, model_name, read_facts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

DEMO = "demo"  # the name of the model that comes with inferd
MAX_DEPTH = 8  # folders inside folders
MAX_ENTRIES = 100_000  # directory entries looked at in one folder of models
MAX_MODELS = 4096

OUTSIDE = "a link that leads out of the folders of models; copy the file into one of them instead"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}(:[a-z0-9._-]{1,64})?")
_MAX_NAME, _MAX_TAG = 128, 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One model: with facts it can be loaded, with an error it can only be shown."""

    name: str
    facts: ModelFacts | None
    error: str | None  # one sentence, fit for a client
    file_bytes: int  # all parts together
    mtime_ns: int  # of the newest part


@dataclass(frozen=True, slots=True)
class _Found:
    """A model file before it is read; `stamp` changes whenever one of its files does."""

    name: str
    path: str
    stamp: tuple[tuple[int, int, int, int], ...]  # device, inode, bytes, mtime_ns of each part
    error: str | None = None


def valid_name(name: str) -> bool:
    """A name somebody asks for; anything else cannot be in a catalog and is never looked up."""
    return _NAME.fullmatch(name) is not None


def as_name(text: str) -> str:
    """The nearest valid name: lower case, every other character a dash; "model" if nothing is left."""
    dashed = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")
    return dashed[:_MAX_NAME] or "model"


class Catalog:
    """`scan` reads the disk and takes as long as that takes: the first time some 50 ms a file, then 0.1 ms."""

    def __init__(self, folders: Sequence[Path], bundled: Path | None = None) -> None:
        self.folders = tuple(folders)
        self._bundled = bundled
        self._read: dict[str, tuple[_Found, ModelFacts | None, str | None]] = {}
        self._scanning = threading.Lock()
        self.names: frozenset[str] = frozenset()  # that the last scan found

    def scan(self) -> Mapping[str, Entry]:
        """All models by name, the bundled one first. Never raises: what cannot be read is an entry's error."""
        with self._scanning:
            entries = self._scan()
            self.names = frozenset(entries)
            return entries

    def adapters(self, wanted: Mapping[str, str], facts: ModelFacts) -> tuple[Adapter, ...]:
        """LoRA adapters of a model: name -> path below one of the folders. Raises CorruptModel with a sentence."""
        found = []
        for name, path in wanted.items():
            try:
                found.append(self._adapter(name, path, facts))
            except CorruptModel as error:
                raise CorruptModel(f"adapter {name!r}: {error}") from None
        return tuple(found)

    def _adapter(self, name: str, path: str, facts: ModelFacts) -> Adapter:
        roots = self._roots()
        for root in roots:
            whole = os.path.join(root, path)
            if (status := _regular(whole, roots)) is not None:
                if status.st_nlink > 1:
                    raise CorruptModel("it has more than one hard link; copy it into the folder instead")
                version = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"
                return Adapter(name, os.path.realpath(whole), adapter_bytes(whole, facts), version)
        raise CorruptModel("there is no such file below a folder of models")

    def _scan(self) -> Mapping[str, Entry]:
        entries: dict[str, Entry] = {}
        seconds: list[Entry] = []
        read, self._read = self._read, {}
        files_seen: set[tuple[int, int]] = set()
        for found in islice(self._found(), MAX_MODELS):
            first = found.stamp[0][:2]
            if first in files_seen:
                continue  # the same file by another way, or a folder given twice
            files_seen.add(first)
            entry = self._entry(found, read)
            if entry.name in entries:
                seconds.append(entry)
            else:
                entries[entry.name] = entry
        for entry in seconds:  # last, so that no name somebody chose is taken by a made-up one
            renamed = _renamed(entry, entries)
            entries[renamed.name] = renamed
        return MappingProxyType(entries)

    def _found(self) -> Iterator[_Found]:
        if self._bundled is not None and (status := _regular(str(self._bundled))):
            yield _Found(DEMO, str(self._bundled), _stamp([status]))
        roots = self._roots()
        for root in roots:
            yield from _walk(root, roots)

    def _roots(self) -> tuple[str, ...]:
        return tuple(map(os.path.realpath, self.folders))

    def _entry(self, found: _Found, read: dict[str, tuple[_Found, ModelFacts | None, str | None]]) -> Entry:
        known = read.get(found.path)
        if known is None or known[0] != found:
            roots = () if self._bundled is not None and found.path == str(self._bundled) else self._roots()
            known = (found, *_facts(found, roots))
        self._read[found.path] = known
        _, facts, error = known
        return Entry(
            name=found.name,
            facts=facts,
            error=error,
            file_bytes=sum(n_bytes for _, _, n_bytes, _ in found.stamp),
            mtime_ns=max(mtime_ns for _, _, _, mtime_ns in found.stamp),
        )


def _facts(found: _Found, roots: Sequence[str]) -> tuple[ModelFacts | None, str | None]:
    if found.error is not None:
        return None, found.error
    try:
        facts = read_facts(found.path)
    except CorruptModel as error:
        return None, str(error)
    if roots and any(_regular(path, roots) is None for path in facts.files):  # of weights and texts beside it, too
        return None, f"one of its files is {OUTSIDE}"
    return facts, None


def _renamed(entry: Entry, entries: Mapping[str, Entry]) -> Entry:
    """The second file of a name is shown beside the first, and why it cannot be used."""
    error = entry.error or f"another model is already called {entry.name!r}; rename this file"
    n = 2
    while (name := f"{entry.name[: _MAX_NAME - 5]}-{n}") in entries:
        n += 1
    return Entry(name, None, error, entry.file_bytes, entry.mtime_ns)


def _walk(root: str, roots: Sequence[str]) -> Iterator[_Found]:
    """Model files below `root` in a fixed order; hidden files and folders are somebody's working state."""
    budget = MAX_ENTRIES
    pending = [(root, 0)]
    while pending:
        folder, depth = pending.pop()
        files: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(folder) as listing:
                for item in listing:
                    budget -= 1
                    if budget < 0:
                        return
                    if item.name.startswith("."):
                        continue
                    if item.is_dir(follow_symlinks=False):
                        folders.append(item.path)
                    elif is_model_file(item.path):
                        files.append(item.path)
        except OSError:
            continue  # gone or closed to us
        yield from _models(root, roots, sorted(files))
        if depth < MAX_DEPTH:
            pending.extend((path, depth + 1) for path in sorted(folders, reverse=True))


def _models(root: str, roots: Sequence[str], files: list[str]) -> Iterator[_Found]:
    starts = [path for path in files if model_files(path)]
    for path in starts:
        name, tag = model_name(path, root, alone=len(starts) == 1)
        found = _look(roots, f"{as_name(name)}:{as_name(tag)[:_MAX_TAG]}" if tag else as_name(name), path)
        if found is not None:
            yield found


def _look(roots: Sequence[str], name: str, path: str) -> _Found | None:
    """None for what is no file at all: a pipe, a device, or a dangling link."""
    parts = model_files(path)
    stats = [_regular(part, roots) for part in parts]
    if stats[0] is None:
        if (outside := _regular(path)) is None:
            return None
        ((device, inode, _, mtime_ns),) = _stamp([outside])  # how large it is is nobody's business
        return _Found(name, path, ((device, inode, 0, mtime_ns),), f"is {OUTSIDE}")
    error = None
    if None in stats:
        error = f"part {stats.index(None) + 1} of {len(parts)} is missing"
    elif any(status.st_nlink > 1 for status in stats if status):
        error = "has more than one hard link; copy it into the folder instead"
    elif not path.isprintable():  # half a UTF-16 pair stands for a byte that is not UTF-8
        error = "has a file name that cannot be shown; rename it"
    return _Found(name, path, _stamp(stats), error)


def _regular(path: str, roots: Sequence[str] = ()) -> os.stat_result | None:
    """The status of a regular file that, followed through its links, lies below one of the roots."""
    try:
        if roots and not os.path.realpath(path).startswith(tuple(os.path.join(root, "") for root in roots)):
            return None
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _stamp(stats: Sequence[os.stat_result | None]) -> tuple[tuple[int, int, int, int], ...]:
    return tuple((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) for s in stats if s is not None)
