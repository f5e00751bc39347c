"""ONNX Runtime: the one room of `onnxruntime`."""

from __future__ import annotations

from typing import cast


def providers() -> tuple[str, list[str]]:
    """Its version and the execution providers compiled into it."""
    import onnxruntime

    return cast(str, onnxruntime.__version__), list(cast(list[str], onnxruntime.get_available_providers()))
