"""Folders that are made for onnxruntime-genai, and what they say of their model. Nothing is loaded."""

from __future__ import annotations

import glob
import json
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..facts import CorruptModel
from . import folder

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARY = "onnxruntime_genai"
CONFIG = "genai_config.json"


def applies(path: str) -> bool:
    """The folder is made for the library, and the library is here."""
    return os.path.isfile(os.path.join(os.path.dirname(path), CONFIG)) and find_spec(LIBRARY) is not None


def files(path: str) -> list[str]:
    """What the library may open: its folder's files. None where it has nothing to do with the model."""
    if not applies(path):
        return []
    found = glob.glob(os.path.join(glob.escape(os.path.dirname(path)), "*"))
    return sorted(filter(os.path.isfile, found))


def read_config(path: str) -> dict[str, Any]:
    """What it says of the decoder, with the context's length. Raises CorruptModel for what must not be loaded."""
    model = folder.read_json(path, CONFIG).get("model")
    decoder = model.get("decoder") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(decoder, dict):
        raise CorruptModel(f"{CONFIG} has no decoder")
    if decoder.get("filename") != os.path.basename(path):
        raise CorruptModel(f"{CONFIG} is about another file")
    if any(os.path.basename(name) != name for name in _filenames(model)):
        raise CorruptModel(f"{CONFIG} names a file outside of its folder")
    if "custom_op" in json.dumps(model):
        raise CorruptModel(f"{CONFIG} asks for a library of custom operators")
    return {**decoder, "context_length": model.get("context_length"), "vocab_size": model.get("vocab_size")}


def _filenames(value: Any) -> Iterator[str]:
    """Of every part of the model."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "filename":
                yield str(inner)
            yield from _filenames(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _filenames(inner)
