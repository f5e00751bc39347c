"""Engines that answer, are missing, crash or hang, and what they can use."""

from __future__ import annotations

import fcntl
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferd.daemon.domain.device import (
    Backends,
    Device,
    DeviceKind,
    DeviceState,
    LlamaDevice,
    LlamaFacts,
    OnnxFacts,
)
from inferd.daemon.system.probe import join, parse_answer, parse_llama, parse_onnx, probe_backends

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = """
import json, sys
facts = {'llama.cpp': {'version': '0.3.36', 'supports_gpu_offload': True, 'system_info': 'AVX2 = 1', 'devices': [
    {'name': 'CUDA0', 'description': 'Fake', 'type': 'GPU', 'device_id': '0000:01:00.0', 'memory_total': 7},
    {'name': 'CPU', 'description': 'Fake', 'type': 'CPU', 'device_id': None, 'memory_total': 9}]},
    'onnxruntime': {'version': '1.24', 'providers': ['CPUExecutionProvider']}}
print('a driver says hello')
print(json.dumps({sys.argv[1]: facts[sys.argv[1]], 'errors': {}}))
"""


def command(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_both_engines_answer() -> None:
    backends = probe_backends(command=command(ANSWER))
    assert backends.llama is not None
    assert (backends.llama.version, backends.llama.gpu_offload) == ("0.3.36", True)
    assert backends.llama.devices[0] == LlamaDevice("CUDA0", "Fake", "gpu", "0000:01:00.0", 7)
    assert backends.onnx == OnnxFacts("1.24", ("CPUExecutionProvider",))
    assert backends.errors == ()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "the probe was ended by SIGABRT"),
        ("raise SystemExit(3)", "the probe failed with exit code 3"),
        ("print('no JSON')", "the probe failed with exit code 0"),
        ("print('[1]')", "the probe failed with exit code 0"),
        ("print('{}')", "it is not installed"),
        ('print(\'{"errors": {"llama.cpp": "no such library"}}\')', "no such library"),
    ],
)
def test_one_engine_fails_and_the_other_is_still_found(code: str, reason: str) -> None:
    script = f"import sys\nif sys.argv[1] == 'llama.cpp':\n    {code}\n    raise SystemExit(0)\n" + ANSWER
    backends = probe_backends(command=command(script))
    assert backends.llama is None
    assert backends.onnx is not None
    assert backends.errors == (("llama.cpp", reason),)


def test_a_hanging_driver_ends_with_its_probe_and_all_that_it_started(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    # The grandchild holds the output open, as a driver's daemon may, and a lock for as long as it lives.
    script = (
        f"import fcntl, os, signal, sys\nif sys.argv[1] == 'llama.cpp' and os.fork() == 0:\n"
        f"    file = open({str(lock)!r}, 'w')\n    fcntl.flock(file, fcntl.LOCK_EX)\n"
        "    file.write('held')\n    file.flush()\nsignal.pause()"
    )
    backends = probe_backends(limit_s=1.0, command=command(script))
    assert backends.errors == (("llama.cpp", "no answer within 1 s"), ("onnxruntime", "no answer within 1 s"))
    assert lock.read_text() == "held"
    with lock.open() as file:
        assert released_within(file, 5.0)


def released_within(file: IO[str], limit_s: float) -> bool:
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def test_a_probe_that_cannot_start() -> None:
    backends = probe_backends(command=("/nonexistent/python",))
    assert [name for name, _ in backends.errors] == ["llama.cpp", "onnxruntime"]
    assert "could not be started" in backends.errors[0][1]


def test_the_real_probe_answers() -> None:
    backends = probe_backends()
    found = {"llama.cpp": backends.llama, "onnxruntime": backends.onnx}
    assert {name for name, _ in backends.errors} == {name for name, facts in found.items() if facts is None}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["version", "supports_gpu_offload", "system_info", "devices", "providers"]
DEVICE_KEYS = ["name", "description", "type", "device_id", "memory_total"]


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(
    facts=st.dictionaries(st.sampled_from(KEYS), json_values),
    devices=st.lists(st.dictionaries(st.sampled_from(DEVICE_KEYS), json_values), max_size=2),
)
def test_a_strange_answer_never_raises(facts: dict[str, Any], devices: list[dict[str, Any]]) -> None:
    parse_llama(facts)
    parse_onnx(facts)
    found = parse_llama({**facts, "devices": devices})
    assert found is not None
    assert len(found.devices) == len(devices)


@settings(deadline=None)
@given(st.binary())
def test_any_output_is_an_answer_or_none(output: bytes) -> None:
    answer = parse_answer(output)
    assert answer is None or isinstance(answer, dict)


def llama(*devices: LlamaDevice) -> LlamaFacts:
    return LlamaFacts("0.3.36", True, None, devices)


CPU = Device("cpu", DeviceKind.CPU, "amd", "EPYC")
CARD = Device("gpu0", DeviceKind.GPU, "nvidia", "NVIDIA GPU [10de:2330]", pci="0000:01:00.0")
CUDA = LlamaDevice("CUDA0", "NVIDIA H100", "gpu", "0000:01:00.0", 80)


def test_join_by_address() -> None:
    cpu, card = join((CPU, CARD), Backends(llama(CUDA), None))
    assert (cpu.usable_by, card.usable_by) == (("llama.cpp",), ("llama.cpp",))
    assert (card.llama_name, card.name, card.memory_total_bytes) == ("CUDA0", "NVIDIA H100", 80)


def test_a_card_at_another_address_is_not_ours() -> None:
    (card,) = join((CARD,), Backends(llama(replace(CUDA, pci="0000:02:00.0")), None))
    assert (card.usable_by, card.llama_name) == ((), None)


def test_the_first_name_of_a_device_listed_twice() -> None:
    (card,) = join((CARD,), Backends(llama(CUDA, replace(CUDA, name="Vulkan0")), None))
    assert card.llama_name == "CUDA0"


def test_llama_may_know_better_that_a_gpu_is_integrated() -> None:
    (card,) = join((CARD,), Backends(llama(replace(CUDA, type="igpu")), None))
    assert card.kind is DeviceKind.IGPU


def test_onnx_uses_what_its_providers_are_for() -> None:
    onnx = OnnxFacts("1.24", ("CUDAExecutionProvider", "CPUExecutionProvider"))
    npu = Device("npu0", DeviceKind.NPU, "intel", "NPU")
    amd = replace(CARD, vendor="amd")
    cpu, card, other, small = join((CPU, CARD, amd, npu), Backends(None, onnx))
    assert [device.usable_by for device in (cpu, card, other, small)] == [("onnxruntime",), ("onnxruntime",), (), ()]


def test_a_divided_gpu_works_through_its_instances() -> None:
    whole, part = replace(CARD, mig=True), replace(CARD, id="gpu0.mig0", parent="gpu0")
    joined = join((whole, part), Backends(llama(CUDA), None))
    assert [device.usable_by for device in joined] == [(), ("llama.cpp",)]


def test_a_card_without_driver_is_useless() -> None:
    (card,) = join((replace(CARD, state=DeviceState.NO_DRIVER),), Backends(llama(CUDA), None))
    assert card.usable_by == ()
