"""Which backend owns a file, what the file is and what a load of it takes; the daemon's only way to ask.

A new backend is one folder here and two lines below: an import and a row.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from .facts import HOST, BackendName, CorruptModel, Footprint, LoadPlan, ModelFacts
from .llama import footprint as llama_footprint
from .llama import gguf
from .onnx import folder as onnx_folder
from .onnx import footprint as onnx_footprint
from .onnx import header as onnx_header

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HASH = re.compile(r"[0-9a-f]{32,}")  # a folder of a download cache, named by content or revision
FAKE_BYTES = 30 << 20  # the fake engine's process; it has no weights


class Kind(NamedTuple):
    suffix: str  # of the file's name, lower case
    read_facts: Callable[[str], ModelFacts]
    part_paths: Callable[[str], list[str]]  # all files of the model that begins with this one; [] if none does
    name: Callable[[str, str, bool], tuple[str, str]]  # see model_name
    footprint: Callable[[ModelFacts, LoadPlan], Footprint]
    largest_context: Callable[[ModelFacts, LoadPlan, Mapping[str, int]], int | None]
    adapter_bytes: Callable[[str, ModelFacts], int]


KINDS: dict[BackendName, Kind] = {
    "llama": Kind(
        gguf.SUFFIX,
        gguf.read_facts,
        gguf.part_paths,
        lambda path, root, alone: (_folder_name(path, root, alone) or gguf.stem(path), ""),
        llama_footprint.estimate,
        llama_footprint.largest_context,
        gguf.adapter_bytes,
    ),
    "onnx": Kind(
        onnx_folder.SUFFIX,
        onnx_header.read_facts,
        onnx_folder.part_paths,
        onnx_folder.name,
        onnx_footprint.estimate,
        onnx_footprint.largest_context,
        onnx_header.adapter_bytes,
    ),
}


def is_model_file(path: str | os.PathLike[str]) -> bool:
    """By its name alone: nothing is opened."""
    return _owner(path) is not None


def read_facts(path: str | os.PathLike[str]) -> ModelFacts:
    """Raises CorruptModel, with one sentence that is fit for a client."""
    kind = _owner(path)
    if kind is None:
        suffixes = ", ".join(sorted(kind.suffix for kind in KINDS.values()))
        raise CorruptModel(f"no backend reads files of this kind; the known ones end in {suffixes}")
    facts = kind.read_facts(os.fspath(path))
    opened = map(os.path.realpath, [*kind.part_paths(os.fspath(path)), *facts.files])
    return msgspec.structs.replace(facts, files=tuple(dict.fromkeys(opened)))


def model_name(path: str | os.PathLike[str], root: str, *, alone: bool) -> tuple[str, str]:
    """What a model below the folder `root` is called by its author, and a tag that tells it from others of that name.

    `alone`: its folder has no other model. Then it is the folder's name, if somebody gave it one.
    """
    kind = _owner(path)
    return kind.name(os.fspath(path), root, alone) if kind else (os.path.basename(path), "")


def _folder_name(path: str, root: str, alone: bool) -> str:
    """ "" where the folder is not the model's own."""
    folder = os.path.dirname(path)
    name = os.path.basename(folder)
    return name if alone and folder != root and not HASH.fullmatch(name) else ""


def model_files(path: str | os.PathLike[str]) -> list[str]:
    """All files of the model that begins with this one; none if it is a later part or no model file."""
    kind = _owner(path)
    return kind.part_paths(os.fspath(path)) if kind else []


def adapter_bytes(path: str | os.PathLike[str], facts: ModelFacts) -> int:
    """Of a LoRA adapter's matrices, read without loading it. Raises CorruptModel when it is none for this model."""
    return KINDS[facts.backend].adapter_bytes(os.fspath(path), facts)


def footprint(facts: ModelFacts, plan: LoadPlan) -> Footprint:
    """What a worker with this plan will take; the plan's backend counts, not the file's."""
    if plan.backend == "fake":
        return Footprint(bytes_on={HOST: FAKE_BYTES}, weights_bytes=0, kv_bytes=0, compute_bytes=FAKE_BYTES)
    return KINDS[plan.backend].footprint(facts, plan)


def largest_context(facts: ModelFacts, plan: LoadPlan, room_bytes_on: Mapping[str, int]) -> int | None:
    """The longest context, in tokens, that fits into so many free bytes by pool; None if none does."""
    return None if plan.backend == "fake" else KINDS[plan.backend].largest_context(facts, plan, room_bytes_on)


def _owner(path: str | os.PathLike[str]) -> Kind | None:
    name = os.path.basename(path).lower()
    for kind in KINDS.values():
        if name.endswith(kind.suffix) and name != kind.suffix:
            return kind
    return None
