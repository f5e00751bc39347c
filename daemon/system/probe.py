"""Asks the engines, each in a process of its own, what they are and which devices they see."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..domain.device import (
    Backends,
    Device,
    DeviceKind,
    DeviceState,
    LlamaDevice,
    LlamaFacts,
    OnnxFacts,
)
from .sysfs import parse_pci

LLAMA, ONNX = "llama.cpp", "onnxruntime"
PROBE_LIMIT_S = 30.0
_MAX_OUTPUT_BYTES = 1 << 20
# ONNX Runtime's execution providers by the maker of the device that each runs on.
_PROVIDERS = {
    "nvidia": ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"),
    "amd": ("ROCMExecutionProvider", "MIGraphXExecutionProvider"),
    "intel": ("OpenVINOExecutionProvider",),
}
_NPU_PROVIDERS = {"intel": ("OpenVINOExecutionProvider",), "amd": ("VitisAIExecutionProvider",)}


def probe_backends(limit_s: float = PROBE_LIMIT_S, command: tuple[str, ...] | None = None) -> Backends:
    """Blocks for as long as loading the libraries takes: a driver that crashes or hangs ends its
    probe, and neither the daemon nor the probe of the other engine."""
    # -P: a folder we happen to be started in must not lend its modules.
    command = command or (sys.executable, "-P", "-m", "inferd.backends.probe")
    deadline_s = time.monotonic() + limit_s
    children = [(name, _spawn((*command, name))) for name in (LLAMA, ONNX)]
    found: dict[str, Any] = {}
    errors: list[tuple[str, str]] = []
    for name, child in children:
        answer = child if isinstance(child, str) else _answer(child, deadline_s, limit_s)
        if isinstance(answer, dict) and isinstance(answer.get(name), dict):
            found[name] = answer[name]
        else:
            errors.append((name, answer if isinstance(answer, str) else _reason(answer, name)))
    return Backends(parse_llama(found.get(LLAMA)), parse_onnx(found.get(ONNX)), tuple(errors))


def parse_llama(facts: dict[str, Any] | None) -> LlamaFacts | None:
    if facts is None:
        return None
    listed = facts.get("devices")
    entries = listed if isinstance(listed, list) else []
    devices = [_llama_device(entry) for entry in entries if isinstance(entry, dict)]
    offload = facts.get("supports_gpu_offload")
    return LlamaFacts(
        version=_text(facts.get("version")),
        gpu_offload=offload if isinstance(offload, bool) else None,
        system_info=_text(facts.get("system_info")),
        devices=tuple(devices),
    )


def parse_onnx(facts: dict[str, Any] | None) -> OnnxFacts | None:
    if facts is None:
        return None
    providers = facts.get("providers")
    names = [name for name in providers if isinstance(name, str)] if isinstance(providers, list) else []
    return OnnxFacts(_text(facts.get("version")), tuple(names))


def join(devices: tuple[Device, ...], backends: Backends) -> tuple[Device, ...]:
    """Says of each device who can use it, and under which name llama.cpp knows it."""
    seen = backends.llama.devices if backends.llama else ()
    by_pci: dict[str | None, LlamaDevice] = {device.pci: device for device in reversed(seen) if device.pci}
    return tuple(_joined(device, backends, by_pci) for device in devices)


def _joined(device: Device, backends: Backends, by_pci: dict[str | None, LlamaDevice]) -> Device:
    if device.kind is DeviceKind.CPU:
        usable = [LLAMA] if backends.llama else []
        usable += [ONNX] if backends.onnx else []
        return replace(device, usable_by=tuple(usable))
    if device.mig or device.state is DeviceState.NO_DRIVER:  # a divided GPU works through its instances
        return replace(device, usable_by=())
    match = by_pci.get(device.pci) if device.pci else None
    usable = [LLAMA] if match else []
    providers = (_NPU_PROVIDERS if device.kind is DeviceKind.NPU else _PROVIDERS).get(device.vendor, ())
    # These are compiled in; whether one loads here is only known once a session was made.
    compiled_in = backends.onnx.providers if backends.onnx and device.state is DeviceState.OK else ()
    provider = next((name for name in providers if name in compiled_in), "")
    usable += [ONNX] if provider else []
    if match is None:
        return replace(device, usable_by=tuple(usable), onnx_provider=provider)
    integrated = device.kind is DeviceKind.GPU and match.type == "igpu"
    return replace(
        device,
        kind=DeviceKind.IGPU if integrated else device.kind,
        name=match.description if device.name.endswith("]") and match.description else device.name,
        memory_total_bytes=device.memory_total_bytes or match.memory_total_bytes,
        usable_by=tuple(usable),
        onnx_provider=provider,
        llama_name=match.name,
    )


def _llama_device(entry: dict[str, Any]) -> LlamaDevice:
    total, pci = entry.get("memory_total"), entry.get("device_id")
    return LlamaDevice(
        name=_text(entry.get("name")) or "",
        description=_text(entry.get("description")) or "",
        type=(_text(entry.get("type")) or "").lower(),
        pci=parse_pci(pci) if isinstance(pci, str) else None,
        memory_total_bytes=total if isinstance(total, int) and total > 0 else None,
    )


def _spawn(command: tuple[str, ...]) -> subprocess.Popen[bytes] | str:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return f"the probe could not be started: {error.strerror}"


def _answer(child: subprocess.Popen[bytes], deadline_s: float, limit_s: float) -> dict[str, Any] | str:
    try:
        output, _ = child.communicate(timeout=max(0.01, deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        _abandon(child)
        return f"no answer within {limit_s:g} s"
    except BaseException:  # Ctrl-C reaches us alone: the probe has a session of its own
        _abandon(child)
        raise
    if child.returncode < 0:
        return f"the probe was ended by {_signal_name(-child.returncode)}"
    answer = parse_answer(output[:_MAX_OUTPUT_BYTES])
    return f"the probe failed with exit code {child.returncode}" if answer is None else answer


def parse_answer(output: bytes) -> dict[str, Any] | None:
    """The last line is the answer: a driver may print before it."""
    lines = output.strip().splitlines()
    with suppress(ValueError, RecursionError):
        answer = json.loads(lines[-1]) if lines else None
        return answer if isinstance(answer, dict) else None
    return None


def _abandon(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    # One stuck inside the kernel outlives even that; waiting for it would hang us too.
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=2)
    if child.stdout is not None:
        child.stdout.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _reason(answer: dict[str, Any], name: str) -> str:
    errors = answer.get("errors")
    return (_text(errors.get(name)) if isinstance(errors, dict) else None) or "it is not installed"


def _text(value: object) -> str | None:
    return value[:4096] if isinstance(value, str) and value else None
