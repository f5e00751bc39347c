"""A daemon for one chaos run, in a folder of its own, with its state on a small disk where we may make one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from inferd.tests.conftest import Gguf
from inferd.tests.e2e.daemons import Launcher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from inferd.tests.e2e.daemons import Daemon


def small_gguf(n_vocab: int = 512) -> bytes:
    """A file for the fake engine."""
    return Gguf.small(n_vocab=n_vocab).build()


@contextlib.contextmanager
def daemon(config: str, files: Mapping[str, bytes] = {}, *, state_bytes: int = 0) -> Iterator[tuple[Daemon, Path]]:
    """It, and its state folder, which is a disk of `state_bytes` if that is not 0 and we may mount. `{0}` in the config
    stands for that folder. It must end well, if it lives.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inferd-chaos-")))
        state = folder / "state"
        state.mkdir()
        if state_bytes:
            stack.enter_context(small_disk(state, state_bytes))
        launcher = Launcher(folder, environment={"XDG_STATE_HOME": str(state)})
        launcher.models.mkdir()
        for name, data in files.items():
            (launcher.models / f"{name}.gguf").write_bytes(data)
        one = launcher.start(config.replace("{0}", str(state)))
        try:
            yield one, state
        finally:
            one.close()
            if one.process.poll() is None:
                one.terminate()


def exceptions(one: Daemon) -> int:
    """How many the daemon has logged."""
    log = one.log.read_text(errors="replace")
    return log.count("Traceback") + log.count("failed, ticket")


@contextlib.contextmanager
def small_disk(folder: Path, n_bytes: int) -> Iterator[None]:
    """A file system of its own; none without the right to mount."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Not a byte is free until the end of the block."""
    filler = folder / "filler"
    try:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield
    finally:
        filler.unlink(missing_ok=True)
