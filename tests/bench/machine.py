"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("inferd", "llama-cpp-python", "grpcio", "protobuf", "msgspec", "numpy")
# In a process of its own, so that the bench itself stays light.
ASK_LLAMA = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"


def describe() -> list[str]:
    """Markdown list items."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return [
        f"- {_cpu()}, {len(os.sched_getaffinity(0))} cores, {memory_gib:.0f} GiB, Linux {platform.release()}",
        f"- load average before: {load}",
        f"- Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        f"- llama.cpp in it: {_llama()}",
    ]


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _llama() -> str:
    answer = subprocess.run([sys.executable, "-c", ASK_LLAMA], capture_output=True, text=True, cwd="/", check=False)
    return answer.stdout.strip() or "not installed"
