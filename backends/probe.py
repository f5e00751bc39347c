"""Prints what the engines are, as one JSON object: python -m inferd.backends.probe [ENGINE ...]."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from .child import humble

if TYPE_CHECKING:
    from collections.abc import Callable


def llama() -> dict[str, Any]:
    from .llama import devices

    return {**devices.build_facts(), "devices": devices.backend_devices()}


def onnx() -> dict[str, Any]:
    from .onnx import session

    version, providers = session.providers()
    return {"version": version, "providers": providers}


PROBES: dict[str, Callable[[], dict[str, Any]]] = {"llama.cpp": llama, "onnxruntime": onnx}


def probe(names: list[str]) -> dict[str, Any]:
    """Facts by engine, None for one that is missing or does not load, and why under `errors`."""
    found: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name in names or list(PROBES):
        if name not in PROBES:
            found[name], errors[name] = None, "no such engine"
            continue
        try:
            found[name] = PROBES[name]()
        except ModuleNotFoundError as error:
            found[name], errors[name] = None, f"it is not installed: {error}"
        except Exception as error:  # a library may refuse in any way it likes; the answer is the same
            found[name], errors[name] = None, f"it does not load: {str(error) or type(error).__name__}"
    return {**found, "errors": errors}


def main() -> None:
    # No cage: it opens no model, and NVIDIA's driver has a setuid program make the nodes that workers then find.
    humble()
    # Drivers print where they please, so keep the real output to ourselves.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with answer:
        answer.write("\n" + json.dumps(probe(sys.argv[1:])) + "\n")
        answer.flush()
        # A vendor's library that crashes while it is torn down must not spoil a good answer.
        os._exit(0)


if __name__ == "__main__":
    main()
