from __future__ import annotations

from inferd.backends.llama.devices import backend_devices, build_facts


def test_the_build_and_its_devices_are_known() -> None:
    facts = build_facts()
    assert isinstance(facts["supports_gpu_offload"], bool)
    assert facts["version"]
    (cpu,) = (device for device in backend_devices() if device["type"] == "cpu")
    assert cpu["device_id"] is None
    assert isinstance(cpu["memory_total"], int)
    assert cpu["memory_total"] > 0
