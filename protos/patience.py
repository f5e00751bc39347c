"""How long a daemon that does not answer yet is tried again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .address import closed_by
from .errors import InferdError, Unreachable, from_rpc

if TYPE_CHECKING:
    import grpc

CONNECT_TIMEOUT_S = 2.0
RETRY_S = 0.05
ENDING_RETRY_S = 0.5  # while it drains, and still answers
SHUTTING_DOWN = "shutting_down"  # the code of a daemon that ends


class Patience:
    """One call's budget of waiting, counted from its first failure. `restarts`: one that ends is waited for, too."""

    def __init__(self, address: str, connect_timeout_s: float, *, restarts: bool = False) -> None:
        self.restarts = restarts
        self._address = address
        self._connect_timeout_s = connect_timeout_s
        self._until_s: float | None = None

    def pause_s(self, error: grpc.RpcError, *, heard: bool = False) -> float:
        """The pause before the next try, or the failure raised: only a call that nobody heard is made again."""
        failure = from_rpc(error, self._address, heard=heard)
        now_s = time.monotonic()
        if self._until_s is None:
            self._until_s = now_s + self._connect_timeout_s
        ends = self.restarts and failure.code == SHUTTING_DOWN
        if heard or not (ends or isinstance(failure, Unreachable)):
            raise failure from None
        if now_s >= self._until_s:
            # Only now: while a daemon starts, its folder and socket are closed to everybody for a moment.
            if not ends and (group := closed_by(self._address)) is not None:
                text = f"{self._address} is for members of the group {group}, and you are none"
                raise InferdError("permission_denied", text)
            raise failure from None
        return ENDING_RETRY_S if ends else RETRY_S
