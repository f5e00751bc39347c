"""`make demo`: starts a daemon of its own, streams two answers from the built-in model, and stops it again.

Arguments go to `inferd serve`, such as `--fake` or `--log-level debug`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from inferd import Client, InferdError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.protos.streams import Generation

MODEL = "demo"
QUESTIONS = ("Hello! Who are you?", "Tell me a story")
START_LIMIT_S = 60.0
STOP_LIMIT_S = 60.0
LOG_LINES = 30
ENDED_BADLY = "the daemon ended with code {}"


class DemoFailed(Exception):
    """Something the demo shows does not work."""


@contextmanager
def daemon(folder: Path, log: Path) -> Iterator[str]:
    """A daemon on a socket in `folder`, stopped as a service manager would stop it."""
    address = f"unix:{folder}/inferd.sock"
    config = folder / "inferd.toml"
    config.write_text("# Every default: the demo must not depend on the config of this machine.\n")
    command = [sys.executable, "-m", "inferd.daemon.cli.app", "serve", "--config", str(config), "--address", address]
    command += sys.argv[1:]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as child:
        try:
            wait_until_it_answers(address, child)
            yield address
            stop(child)
        finally:
            if child.poll() is None:
                child.kill()


def wait_until_it_answers(address: str, child: subprocess.Popen[bytes]) -> None:
    """Return once the daemon answers; it ending, or being too slow, is a failure."""
    until_s = time.monotonic() + START_LIMIT_S
    with Client(address, connect_timeout_s=0.5) as client:
        while True:
            try:
                client.snapshot()
                return
            except Unreachable:
                if child.poll() is not None:
                    raise DemoFailed(ENDED_BADLY.format(child.returncode)) from None
                if time.monotonic() > until_s:
                    raise DemoFailed(f"the daemon does not answer after {START_LIMIT_S:.0f} s") from None


def stop(child: subprocess.Popen[bytes]) -> None:
    """Ask the daemon to end, and see that it does so well."""
    child.send_signal(signal.SIGTERM)
    try:
        code = child.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"the daemon still runs {STOP_LIMIT_S:.0f} s after SIGTERM") from None
    if code != 0:
        raise DemoFailed(ENDED_BADLY.format(code))


def answer(client: Client, question: str, console: Console) -> Generation:
    """Stream one answer to the terminal."""
    console.print(f"> {question}", style="bold", markup=False, highlight=False)
    generation = client.generate(MODEL, question, max_tokens=600, seed=7)
    for delta in generation:
        sys.stdout.write(delta.text)
        sys.stdout.flush()
    print("\n")
    if not generation.text_so_far().strip():
        raise DemoFailed(f"the answer to {question!r} is empty")
    return generation


def show_figures(generations: list[Generation], console: Console) -> None:
    """What each answer cost, a row per answer."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model")
    table.add_column("device")
    for name in ("prompt tokens", "cached", "completion tokens", "first token", "tokens/s"):
        table.add_column(name, justify="right")
    for generation in generations:
        usage, timings = generation.usage, generation.timings
        if usage is None or timings is None:
            raise DemoFailed("the daemon gave no usage and timings")
        tokens = (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
        rate = f"{1000 / timings.tpot_ms:.0f}" if timings.tpot_ms > 0 else "-"
        row = (generation.model, generation.device or "-", *map(str, tokens), f"{timings.ttft_ms:.0f} ms", rate)
        table.add_row(*row)
    console.print(table)


def main() -> int:
    console = Console()
    with tempfile.TemporaryDirectory(prefix="inferd-demo-") as name:
        log = Path(name) / "daemon.log"
        try:
            with daemon(Path(name), log) as address, Client(address) as client:
                show_figures([answer(client, question, console) for question in QUESTIONS], console)
        except (DemoFailed, InferdError) as error:
            print(f"demo: {error}; the daemon's last lines:", file=sys.stderr)
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            print("\n".join(lines[-LOG_LINES:]), file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
