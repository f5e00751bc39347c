"""What this build of llama.cpp is and can compute on, as it says itself."""

from __future__ import annotations

import ctypes
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import llama_cpp.llama_cpp as c

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Device(ctypes.Structure):
    """ggml_backend_dev_props."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("capabilities", ctypes.c_bool * 16),
    )


def handles(names: Sequence[str]) -> list[int]:
    """ggml's pointers to the devices of these names. Raises LookupError naming the one that is not there."""
    ggml = c._lib
    ggml.ggml_backend_dev_by_name.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_by_name.argtypes = [ctypes.c_char_p]
    c.llama_backend_init()
    found = {name: ggml.ggml_backend_dev_by_name(name.encode()) for name in names}
    for name, handle in found.items():
        if not handle:
            raise LookupError(f"this build of llama.cpp finds no device {name}")
    return list(found.values())


def offload(params: Any, devices: Sequence[str], tensor_split: Sequence[float]) -> Any:
    """Say in llama_model_params where the offloaded layers go; returns what C points to. Raises LookupError."""
    chosen = handles(devices) if params.n_gpu_layers else []
    pointers = (ctypes.c_void_p * (len(chosen) + 1))(*chosen, None)
    if chosen or params.n_gpu_layers == 0:
        params.devices = ctypes.addressof(pointers)
    if len(chosen) > 1:  # without a word from us llama.cpp would go by what is free, and no estimate could follow
        params.tensor_split = (ctypes.c_float * c.llama_max_devices())(*(tensor_split or [1.0] * len(chosen)))
    return pointers


def backend_devices() -> list[dict[str, object]]:
    """What this build of llama.cpp can compute on, as ggml reports it."""
    kinds = ("cpu", "gpu", "igpu", "accel", "meta")
    ggml = c._lib
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    ggml.ggml_backend_dev_get_props.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Device)]
    c.llama_backend_init()
    devices: list[dict[str, object]] = []
    for i in range(ggml.ggml_backend_dev_count()):
        props = _Device()
        ggml.ggml_backend_dev_get_props(ggml.ggml_backend_dev_get(i), ctypes.byref(props))
        devices.append(
            {
                "name": props.name.decode(),
                "description": (props.description or b"").decode(errors="replace"),
                "type": kinds[props.type],
                "device_id": props.device_id.decode().lower() if props.device_id else None,
                "memory_total": props.memory_total,
            }
        )
    return devices


def build_facts() -> dict[str, object]:
    return {
        "version": version("llama_cpp_python"),
        "supports_gpu_offload": bool(c.llama_supports_gpu_offload()),
        "system_info": c.llama_print_system_info().decode(),
    }
