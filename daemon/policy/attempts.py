"""How often each peer has tried in the last minute; the peers that are remembered are bounded."""

from __future__ import annotations

from collections import OrderedDict, deque

WINDOW_S = 60.0
MOST = 10  # in the window; what comes after them is too often
MAX_PEERS = 1024


class Attempts:
    """Of one kind."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()  # who tried last comes last

    def note(self, peer: str, now_s: float) -> bool:
        """One more; whether that was too often."""
        tries = self._tries.setdefault(peer, deque(maxlen=self._most))
        self._tries.move_to_end(peer)
        too_often = len(tries) == self._most and now_s - tries[0] < WINDOW_S
        tries.append(now_s)
        if len(self._tries) > MAX_PEERS:
            self._tries.popitem(last=False)
        return too_often
