"""llama-server, built from the llama.cpp that the installed llama-cpp-python carries, and a lean client for it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from . import daemon
from .models import CACHE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READY_MADE = "INFERD_BENCH_LLAMA_SERVER"  # the path of a binary that is built already
BUILD_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_UI=OFF",
)
AMX_FLAGS = Path(__file__).parents[2] / "packaging" / "amx-flags.sh"
START_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """One point of the sweep."""

    unified: bool
    ubatch: int
    flash_attention: bool

    def flags(self) -> list[str]:
        attention = "on" if self.flash_attention else "off"
        return ["-kvu" if self.unified else "-no-kvu", "-ub", str(self.ubatch), "-fa", attention]

    def __str__(self) -> str:
        return " ".join(self.flags())


SWEEP = tuple(Settings(*point) for point in itertools.product((True, False), (512, 2048), (True, False)))


@dataclass(frozen=True, slots=True)
class Server:
    port: int


@contextlib.contextmanager
def running(binary: Path, model: Path, settings: Settings, *, slots: int, cells: int, threads: int) -> Iterator[Server]:
    """Run llama-server until the end of the block. Its cache of past prompts in RAM is off, as none comes twice."""
    port = _free_port()
    command = [str(binary), "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "--cache-ram", "0"]
    command += ["-np", str(slots), "-c", str(cells), "-t", str(threads), *settings.flags()]
    with _started(command, port) as server:
        yield server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _started(command: list[str], port: int) -> Iterator[Server]:
    log = CACHE / "llama-server.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
    try:
        _wait_healthy(process, port, log)
        yield Server(port)
    finally:
        daemon.end(process)


@contextlib.contextmanager
def router(binary: Path, folder: Path, *, slots: int, cells: int, threads: int) -> Iterator[Server]:
    """llama-server over a folder of models, of which one at a time is loaded."""
    port = _free_port()
    command = [str(binary), "--models-dir", str(folder), "--models-max", "1", "--host", "127.0.0.1"]
    command += ["--port", str(port), "-np", str(slots), "-c", str(cells), "-t", str(threads), "--cache-ram", "0"]
    with _started(command, port) as server:
        yield server


def _wait_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    limit_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit_s:
        if process.poll() is not None:
            raise RuntimeError(
                f"llama-server ended with {process.returncode}: {log.read_text(errors='replace')[-2000:]}"
            )
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"llama-server is not ready after {START_LIMIT_S:g} s")


def generate(
    server: Server,
    prompt: list[int],
    n_tokens: int,
    model: str | None = None,
    *,
    caches: bool = False,
    on_token: Callable[[], object] | None = None,
) -> float:
    """One streamed, greedy completion of exactly `n_tokens`; when it was complete. A router needs the model's name."""
    body = {
        "prompt": prompt,
        "n_predict": n_tokens,
        "ignore_eos": True,
        "cache_prompt": caches,
        "samplers": ["top_k"],  # greedy by its cheapest chain: temperature 0 would still weigh the whole vocabulary
        "top_k": 1,
        "stream": True,
        **({} if model is None else {"model": model}),
    }
    data = json.dumps(body).encode()
    head = (
        "POST /completion HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(data)}",
        "Content-Type: application/json",
        "",
        "",
    )
    n_told = 0
    # Lines straight from the socket: http.client would take the chunks apart in Python.
    with socket.create_connection(("127.0.0.1", server.port)) as connection, connection.makefile("rb") as answer:
        connection.sendall("\r\n".join(head).encode() + data)
        while line := answer.readline():
            if line.startswith(b"data: "):
                event = json.loads(line[6:])
                if on_token is not None and not event["stop"]:
                    on_token()
                if event["stop"]:
                    n_told = event["tokens_predicted"]  # some may not have been sent: half a UTF-8 sequence at the end
                    break
    if n_told != n_tokens:
        raise RuntimeError(f"llama-server made {n_told} tokens, not {n_tokens}")
    return time.monotonic()


def binary() -> Path:
    """llama-server; built under build/bench when it is not there, which takes minutes."""
    if ready := os.environ.get(READY_MADE):
        return Path(ready).absolute()
    release = version("llama-cpp-python")
    folder = CACHE / f"llama-server-{release}"
    made = folder / "bin" / "llama-server"
    if not made.exists():
        print(f"building llama-server from llama-cpp-python {release}; this takes some minutes", flush=True)
        _build(_source(release), folder)
    return made


def _source(release: str) -> Path:
    """llama.cpp's tree, from the very source archive that the library was built from."""
    folder = CACHE / f"llama_cpp_python-{release}"
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "llama-cpp-python"]
        subprocess.run([*pip, "-d", str(CACHE), f"llama-cpp-python=={release}"], check=True)
        with tarfile.open(CACHE / f"llama_cpp_python-{release}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    return folder / "vendor" / "llama.cpp"


def _build(source: Path, folder: Path) -> None:
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    cmake, ninja = shutil.which("cmake", path=search), shutil.which("ninja", path=search)
    if cmake is None or ninja is None:
        raise RuntimeError(f"cmake and ninja are needed to build llama-server; or set {READY_MADE}")
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    flags = subprocess.run(["sh", str(AMX_FLAGS)], capture_output=True, text=True, check=True).stdout.strip()
    environment = {**os.environ, "CFLAGS": flags, "CXXFLAGS": flags}  # as the library was built
    command = [cmake, "-S", str(source), "-B", str(folder), *generator, *BUILD_OPTIONS]
    subprocess.run(command, check=True, env=environment)
    subprocess.run([cmake, "--build", str(folder), "--target", "llama-server"], check=True)


def describe(server: Path) -> str:
    """What the binary says of itself."""
    answer = subprocess.run([str(server), "--version"], capture_output=True, text=True, check=True)
    return ", ".join((answer.stdout + answer.stderr).strip().splitlines())
