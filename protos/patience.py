"""How long a daemon that does not answer yet is tried again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .errors import Unreachable, from_rpc

if TYPE_CHECKING:
    import grpc

CONNECT_TIMEOUT_S = 2.0
RETRY_S = 0.05


class Patience:
    """One call's budget of waiting, counted from its first failure."""

    def __init__(self, address: str, connect_timeout_s: float) -> None:
        self._address = address
        self._connect_timeout_s = connect_timeout_s
        self._until_s: float | None = None

    def pause_s(self, error: grpc.RpcError, *, heard: bool = False) -> float:
        """The pause before the next try, or the failure raised: only a call that nobody heard is made again."""
        failure = from_rpc(error, self._address, heard=heard)
        now_s = time.monotonic()
        if self._until_s is None:
            self._until_s = now_s + self._connect_timeout_s
        if heard or not isinstance(failure, Unreachable) or now_s >= self._until_s:
            raise failure from None
        return RETRY_S
