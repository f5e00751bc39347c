"""Which files of a repository make the model that somebody wants. The same listing gives the same answer."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from ..domain.errors import Code, InferdError
from ..domain.pull import SIDE_FILES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..domain.pull import HubFile, PullOrder

# Good answers for few bytes first: below four bits quality falls off, above it the same memory holds a better model.
QUANTIZATIONS = (
    *("Q4_K_M", "Q4_K_S", "Q4_0", "IQ4_XS", "IQ4_NL", "Q5_K_M", "Q5_K_S", "Q6_K", "Q8_0", "MXFP4"),
    *("Q3_K_L", "Q3_K_M", "IQ3_M", "Q3_K_S", "Q2_K", "BF16", "F16", "F32"),
)
# As published for text and sentence models: what the model was trained as, then its quantized twins.
ONNX_STEMS = ("model", "model_fp16", "model_quantized", "model_int8", "model_uint8", "model_q4f16", "model_q4")
MAX_PARTS = 512  # of one model
SHOWN = 8  # candidates, in a refusal

_PART = re.compile(r"(?P<stem>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE | re.ASCII)
_NO_MODEL = re.compile(r"(^|[/._-])(mmproj|imatrix)", re.IGNORECASE)  # beside models, and of the same kind of file


class Room(NamedTuple):
    """What there is for a model, in bytes."""

    disk_bytes: int
    memory_bytes: int


class Choice(NamedTuple):
    main: str  # the file that stands for the model, as the repository calls it
    files: tuple[tuple[HubFile, str], ...]  # each with its path in the model's own folder; the main one first
    title: str  # what the model is called by its author
    why: str

    @property
    def n_bytes(self) -> int:
        return sum(file.n_bytes for file, _ in self.files)


def choose(files: Sequence[HubFile], order: PullOrder, room: Room) -> Choice:
    """Raises InferdError, with the candidates where there are several."""
    known = {file.name: file for file in files}
    offers = [*_gguf(known), *_onnx(known, order.repo)]
    if not offers:
        raise InferdError(
            Code.NOT_FOUND, f"{order.repo} has no whole model that is a .gguf or .onnx file", field="repo"
        )
    if order.file:
        return _named(offers, order)
    models = [offer for offer in offers if offer.main.lower().endswith(".gguf")] or offers
    if len(models) == 1:
        return models[0]._replace(why="it is the only one")
    fitting = [offer for offer in models if offer.n_bytes <= min(room)]
    for word, of_kind in _by_preference(fitting):
        if len(of_kind) == 1:
            others = f"of {len(models)} files, {len(fitting)} of them small enough"
            return of_kind[0]._replace(why=f"{word} is the first choice {others}")
        if of_kind:
            break
    if models and not fitting:
        least = min(offer.n_bytes for offer in models)
        text = f"none fits: the smallest has {least:,} bytes, and there are {room.disk_bytes:,} on disk"
        raise InferdError(
            Code.NO_ROOM, f"{text} and {room.memory_bytes:,} of memory", needed_bytes=least, free_bytes=min(room)
        )
    raise InferdError(Code.INVALID, f"file is needed: {order.repo} has {_listed(models)}", field="file")


def _named(offers: Sequence[Choice], order: PullOrder) -> Choice:
    for offer in offers:
        if order.file in [file.name for file, _ in offer.files if file.name.lower().endswith((".gguf", ".onnx"))]:
            return offer
    text = f"{order.repo} has no whole model {order.file[:128]!r}; it has {_listed(offers)}"
    raise InferdError(Code.NOT_FOUND, text, field="file")


def _listed(offers: Sequence[Choice]) -> str:
    names = sorted(offer.main for offer in offers)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _by_preference(offers: Sequence[Choice]) -> Iterable[tuple[str, list[Choice]]]:
    for word in QUANTIZATIONS:
        pattern = re.compile(rf"(^|[/._-]){word}([/._-].+)?\.gguf$", re.IGNORECASE)
        yield word, [offer for offer in offers if pattern.search(offer.main)]
    for stem in ONNX_STEMS:
        yield stem, [offer for offer in offers if offer.main.rpartition("/")[2].lower() == f"{stem}.onnx"]


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _gguf(known: dict[str, HubFile]) -> Iterable[Choice]:
    """Each with all its parts; one of which a part is missing is none."""
    for name, file in sorted(known.items()):
        if not name.lower().endswith(".gguf") or _NO_MODEL.search(name):
            continue
        match = _PART.fullmatch(name)
        if match is None:
            yield Choice(name, ((file, _base(name)),), _stem(name), "")
        elif int(match["no"]) == 1 and 1 <= int(match["count"]) <= MAX_PARTS:
            count, suffix = match["count"], name[-len(".gguf") :]
            names = (f"{match['stem']}-{no:05}-of-{count}{suffix}" for no in range(1, int(count) + 1))
            found = [known[part] for part in takewhile(known.__contains__, names)]
            if len(found) == int(count):
                parts = tuple((part, _base(part.name)) for part in found)
                yield Choice(name, parts, _base(match["stem"]), "")


def _onnx(known: dict[str, HubFile], repo: str) -> Iterable[Choice]:
    """Each with its weights and the files that say what it is, as far as there are such."""
    for name in sorted(known):
        if not name.lower().endswith(".onnx"):
            continue
        folder = name.rpartition("/")[0]
        home = folder.rpartition("/")[0] if _base(folder) == "onnx" else folder
        wanted = [name, *(data for data in (f"{name}_data", f"{name}.data") if data in known)]
        wanted += takewhile(known.__contains__, (f"{name}_data_{no}" for no in range(1, MAX_PARTS)))
        wanted += [
            path for side in SIDE_FILES for at in dict.fromkeys((home, folder)) if (path := _join(at, side)) in known
        ]
        cut = len(home) + 1 if home else 0
        variant = _stem(name).removeprefix("model").lstrip("_-.")
        title = repo.partition("/")[2] + (f"-{variant}" if variant else "")
        yield Choice(name, tuple((known[path], path[cut:]) for path in dict.fromkeys(wanted)), title, "")


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
