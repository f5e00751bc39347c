"""The line on a terminal that says what an answer waits for, gone when the answer comes."""

import sys
import threading
from typing import TYPE_CHECKING, TextIO

from ...protos.errors import InferdError
from .common import duration

if TYPE_CHECKING:
    from ...protos import inferd_pb2 as pb
    from ...protos.answer import Answer
    from ...protos.client import Client
    from ...protos.streams import Stream

WATCH_MS = 250


class Waiting:
    """Writes to stderr, and only when that is a terminal."""

    def __init__(self, client: "Client", model: str, stream: TextIO | None = None) -> None:
        self._client = client
        self._model = model
        self._stream = stream or sys.stderr
        self._silent = not self._stream.isatty()
        self._lock = threading.Lock()  # the load's progress comes from a second thread
        self._shown = False
        self._snapshots: Stream[pb.Snapshot] | None = None

    def update(self, answer: "Answer") -> None:
        """Show what `answer` waits for now, or nothing when it does not wait."""
        if self._silent:
            return
        if answer.queued is None:
            self.clear()
        elif answer.waits_for == "load":
            self._watch_load()
        else:
            self._stop_watching()
            self._show(sentence(answer.queued, answer.waits_for, answer.eta_ms))

    def clear(self) -> None:
        """Take the line away."""
        self._stop_watching()
        with self._lock:
            if self._shown:
                self._write("")
                self._shown = False

    def _show(self, text: str) -> None:
        with self._lock:
            self._write(text)
            self._shown = True

    def _write(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K\x1b[2m{text}\x1b[0m" if text else "\r\x1b[K")
        self._stream.flush()

    def _watch_load(self) -> None:
        if self._snapshots is None:
            self._show(f"loading {self._model}...")
            self._snapshots = self._client.watch(WATCH_MS)
            threading.Thread(target=self._follow, args=(self._snapshots,), name="load", daemon=True).start()

    def _stop_watching(self) -> None:
        with self._lock:
            snapshots, self._snapshots = self._snapshots, None
        if snapshots is not None:
            snapshots.cancel()

    def _follow(self, snapshots: "Stream[pb.Snapshot]") -> None:
        try:
            for snapshot in snapshots:
                loading = [model for model in snapshot.models if model.name == self._model]
                with self._lock:
                    if self._snapshots is not snapshots:
                        return
                    if loading and loading[0].state == "loading":
                        self._write(f"loading {self._model}... {loading[0].load_progress:.0%}")
        except InferdError:
            return  # the answer itself will say what is wrong


WAITS = {
    "memory": "queued for KV memory",
    "room": "queued until another model makes way",
    "pressure": "queued: the machine is short of memory",
}


def sentence(position: int, why: str | None, eta_ms: tuple[float, float] | None = None) -> str:
    """What a position in the queue means to who stands there."""
    if why == "prompt":
        return "reading the prompt"
    place = f"{position} before you" if position else "you are next"
    eta = "" if eta_ms is None else f", in about {span(*eta_ms)}"
    return f"{WAITS.get(why or '', 'queued')}, {place}{eta}"


def span(low_ms: float, high_ms: float) -> str:
    """An interval for people; one figure where both ends look alike."""
    low, high = duration(low_ms / 1e3), duration(high_ms / 1e3)
    return low if low == high else f"{low} to {high}"
