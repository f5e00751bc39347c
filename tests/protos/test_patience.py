"""How long a daemon that does not answer yet is tried again."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from inferd.protos import patience
from inferd.protos.errors import InferdError, Unreachable


class Failed(grpc.RpcError):
    """A finished call as the library shows it."""

    def __init__(self, status: grpc.StatusCode, message: str = "") -> None:
        super().__init__()
        self._status, self._message = status, message

    def code(self) -> grpc.StatusCode:
        return self._status

    def details(self) -> str:
        return self._message

    def trailing_metadata(self) -> Any:
        return ()


NOBODY = Failed(grpc.StatusCode.UNAVAILABLE)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time as the test says; the list's last entry is now."""
    times = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: times[-1])
    return times


def test_the_budget_counts_from_the_first_failure(clock: list[float]) -> None:
    waiting = patience.Patience("host:1", 2.0)
    clock.append(500.0)  # the call itself may have taken long
    assert waiting.pause_s(NOBODY) == patience.RETRY_S
    clock.append(501.9)
    assert waiting.pause_s(NOBODY) == patience.RETRY_S
    clock.append(502.0)
    with pytest.raises(Unreachable, match="no daemon at host:1"):
        waiting.pause_s(NOBODY)


def test_a_socket_for_others_is_said_to_be_when_the_budget_is_spent(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "closed_by", lambda address: "inferd")
    waiting = patience.Patience("unix:/a", 2.0)
    assert waiting.pause_s(NOBODY) == patience.RETRY_S  # a daemon that starts opens it in a moment
    clock.append(102.0)
    with pytest.raises(InferdError, match="members of the group inferd") as caught:
        waiting.pause_s(NOBODY)
    assert caught.value.code == "permission_denied"


def test_what_the_daemon_said_is_final() -> None:
    with pytest.raises(InferdError, match="why"):
        patience.Patience("host:1", 2.0).pause_s(Failed(grpc.StatusCode.INTERNAL, "why"))


def test_a_call_that_was_heard_is_not_made_again() -> None:
    with pytest.raises(Unreachable, match="went away"):
        patience.Patience("host:1", 2.0).pause_s(NOBODY, heard=True)
