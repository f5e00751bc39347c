from __future__ import annotations

import pytest

from inferd.backends.llama.devices import backend_devices, build_facts, handles


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
