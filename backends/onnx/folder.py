"""The files around a model: which folder is its own, its configuration, and weights outside of the graph's file.

Everything in it may be hostile: only regular files are read, up to a size, and weights only from beneath the folder.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

from ..facts import CorruptModel

if TYPE_CHECKING:
    from .graph import External

SUFFIX = ".onnx"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
# Beside the weights, what a model is made of; a change of one of them is a change of the model.
SIDE_FILES = (
    CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    CHAT_TEMPLATE,
    "generation_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
MAX_CONFIG_BYTES = 4 * 2**20
MAX_TOKENIZER_BYTES = 128 * 2**20
_DEFAULT_STEM = "model"


def home(path: str) -> str:
    """The folder that a model is named after: of the file, or the one above `onnx/` or a number (Triton's versions)."""
    folder = os.path.dirname(path)
    name = os.path.basename(folder)
    return os.path.dirname(folder) if name == "onnx" or name.isdecimal() else folder


def name(path: str, root: str, alone: bool) -> tuple[str, str]:
    """What a model below `root` is called, and what tells it from others of that name.

    `minilm/onnx/model_int8.onnx` is the int8 one of minilm, `resnet/2/model.onnx` the newest version of resnet.
    """
    own, file = home(path), os.path.basename(path)[: -len(SUFFIX)]
    if not os.path.join(own, "").startswith(os.path.join(root, "")) or own == root:
        return file, ""
    version = os.path.basename(os.path.dirname(path))
    older = version if version.isdecimal() and not _is_newest(path) else ""
    variant = "" if alone else file.removeprefix(_DEFAULT_STEM).lstrip("_-.")
    return _title(own), "-".join(part for part in (older, variant) if part)


def _title(folder: str) -> str:
    """Its name; of a download cache, where folders are named by revision, that of the repository."""
    above, name = os.path.split(folder)
    repository, snapshots = os.path.split(above)
    return os.path.basename(repository).rpartition("--")[2] if snapshots == "snapshots" else name


def _is_newest(path: str) -> bool:
    """Of the versions of a model, each in a folder with its number, the one with the highest."""
    own = os.path.basename(os.path.dirname(path))
    try:
        others = [name for name in os.listdir(home(path)) if name.isdecimal()]
    except OSError:
        return True
    return int(own) == max(map(int, others), default=int(own))


def part_paths(path: str) -> list[str]:
    """The model's file, those with its weights as they are usually called, and those that say what it is."""
    found = [path, *(name for name in (f"{path}_data", f"{path}.data") if os.path.lexists(name))]
    n = 1
    while os.path.lexists(more := f"{path}_data_{n}"):
        found.append(more)
        n += 1
    return found + [side for name in SIDE_FILES if (side := find(path, name)) is not None]


def find(path: str, name: str) -> str | None:
    """A file beside the model's, or in the folder above it that is the model's own."""
    for folder in dict.fromkeys((os.path.dirname(path), home(path))):
        if os.path.isfile(found := os.path.join(folder, name)):
            return found
    return None


def read_bytes(path: str, name: str, most_bytes: int) -> bytes | None:
    """The file of that name; None without one. Raises CorruptModel when it is too large or cannot be read."""
    found = find(path, name)
    if found is None:
        return None
    try:
        fd = os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > most_bytes:
                raise CorruptModel(f"{name} is no file of at most {most_bytes >> 20} MiB")
            return file.read(most_bytes + 1)
    except OSError as error:
        raise CorruptModel(f"{name} cannot be read: {error.strerror}") from None


def read_json(path: str, name: str) -> dict[str, Any]:
    """Of an object; {} without the file. Raises CorruptModel."""
    value = read_any(path, name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CorruptModel(f"{name} is no JSON object")
    return value


def read_any(path: str, name: str) -> Any:
    """What the file says; None without it. Raises CorruptModel."""
    raw = read_bytes(path, name, MAX_CONFIG_BYTES)
    if raw is None:
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise CorruptModel(f"{name} is no JSON") from None


def check_external(path: str, wanted: list[External]) -> dict[str, int]:
    """Bytes of the files with weights, by their location. Raises CorruptModel unless all of them are there and safe."""
    root, sizes = os.path.dirname(path), dict[str, int]()
    for one in wanted:
        if one.location not in sizes:
            sizes[one.location] = _external_bytes(root, one.location)
        if one.offset + one.n_bytes > sizes[one.location]:
            raise CorruptModel("a file with weights is shorter than the model says")
    return sizes


def _external_bytes(root: str, location: str) -> int:
    """A regular file beneath the model's folder, reached without a link, and known by no other name."""
    if not location or "\0" in location or os.path.isabs(location) or ".." in location.split("/"):
        raise CorruptModel("its weights are outside of its folder")
    at = root
    for part in location.split("/"):
        at = os.path.join(at, part)
        if os.path.islink(at):
            raise CorruptModel("a file with its weights is a link; copy it into the model's folder instead")
    try:
        status = os.stat(at, follow_symlinks=False)
    except (OSError, ValueError):
        raise CorruptModel("a file with its weights is missing") from None
    if not stat.S_ISREG(status.st_mode):
        raise CorruptModel("its weights are in something that is no file")
    if status.st_nlink > 1:
        raise CorruptModel("a file with its weights has more than one hard link; copy it instead")
    return status.st_size
