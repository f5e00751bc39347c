"""What llama.cpp says in its log, as facts: buffer sizes, devices, and the reason of a failure."""

from __future__ import annotations

import re
from typing import Literal

INFO, WARN, ERROR, CONT = 2, 3, 4, 5  # ggml_log_level; 1 is debug, CONT goes on with the line before

Fault = Literal["corrupt", "memory", "unsupported"]

_BUFFER = re.compile(r"\s(\S+)\s+(\S+(?: \S+ state)?) buffer size = +([\d.]+) MiB")
_DEVICE = re.compile(r"using device (\S+) \((.+?)\) ")
_MEMORY = re.compile(r"alloc|out of memory|cudaMalloc", re.IGNORECASE)
_UNSUPPORTED = re.compile(
    r"unknown (model arch|pre-tok)|unsupported|not supported|requires|does not divide|cannot be used",
    re.IGNORECASE,
)
_WHERE = re.compile(r"^\w+: (error loading model: |failed to initialize the context: )?")
_PATH = re.compile(r"(/[^\s/'\"]+)+/([^\s/'\"]+)")


class LlamaLog:
    """Fed with every log line; keeps only what a worker reports."""

    def __init__(self) -> None:
        self.buffers: dict[str, int] = {}  # "CPU KV" -> bytes
        self.devices: list[str] = []  # "CUDA0 (NVIDIA H100)"
        self.errors: list[str] = []

    def on_line(self, level: int, line: str) -> None:
        if level == ERROR:
            self.errors.append(line.strip())
        elif match := _BUFFER.search(line):
            name = f"{match[1]} {match[2]}"
            n_bytes = int(float(match[3]) * 2**20)
            self.buffers[name] = self.buffers.get(name, 0) + n_bytes
        elif (match := _DEVICE.search(line)) and (device := f"{match[1]} ({match[2]})") not in self.devices:
            self.devices.append(device)

    def fault(self) -> tuple[Fault, str]:
        """Whose fault a failed load is, and llama.cpp's own words for it, without paths."""
        lines = [line for line in self.errors if not line.endswith("failed to load model")]
        if not lines:
            return "corrupt", "llama.cpp cannot read the file"
        said = _PATH.sub(r"\2", _WHERE.sub("", lines[0]))
        if any(_MEMORY.search(line) for line in lines):
            return "memory", said
        return ("unsupported" if _UNSUPPORTED.search(lines[0]) else "corrupt"), said
