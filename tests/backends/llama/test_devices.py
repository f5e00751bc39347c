from __future__ import annotations

import ctypes

import llama_cpp.llama_cpp as c
import pytest

from inferd.backends.llama.devices import backend_devices, build_facts, handles, offload


def test_the_build_and_its_devices_are_known() -> None:
    facts = build_facts()
    assert isinstance(facts["supports_gpu_offload"], bool)
    assert facts["version"]
    (cpu,) = (device for device in backend_devices() if device["type"] == "cpu")
    assert cpu["device_id"] is None
    assert isinstance(cpu["memory_total"], int)
    assert cpu["memory_total"] > 0


def test_devices_are_found_by_their_names() -> None:
    (cpu,) = handles(["CPU"])
    assert cpu
    assert handles([]) == []
    with pytest.raises(LookupError, match="no device CUDA7"):
        handles(["CPU", "CUDA7"])


def test_layers_go_to_the_chosen_devices_and_nowhere_without_any() -> None:
    params = c.llama_model_default_params()
    params.n_gpu_layers = 0
    kept = offload(params, (), ())
    assert (list(kept), params.devices) == ([None], ctypes.addressof(kept))
    params.n_gpu_layers = -1
    (cpu,) = handles(["CPU"])
    kept = offload(params, ["CPU"], ())
    assert (list(kept), params.devices) == ([cpu, None], ctypes.addressof(kept))
