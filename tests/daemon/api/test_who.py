from __future__ import annotations

from typing import Any, cast

import pytest

from inferd.daemon.api.who import DEFAULT_TENANT, OPERATOR, TENANT, role, tenant
from inferd.daemon.domain.errors import InferdError


class Asker:
    def __init__(self, *metadata: tuple[str, Any]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> Any:
        return self._metadata


def name(*metadata: tuple[str, Any]) -> str:
    return tenant(cast("Any", Asker(*metadata)))


def test_the_metadata_names_the_tenant() -> None:
    assert name((TENANT, "team-a")) == "team-a"
    assert name(("other", "x"), (TENANT, b"team-b")) == "team-b"
    assert name() == DEFAULT_TENANT


def test_who_reaches_the_socket_operates_the_daemon() -> None:
    assert role(cast("Any", Asker((TENANT, "team-a")))) == OPERATOR


@pytest.mark.parametrize("value", ["", "a" * 65, "a\nb", b"\x00"])
def test_a_name_that_cannot_be_shown_is_refused(value: str | bytes) -> None:
    with pytest.raises(InferdError) as caught:
        name((TENANT, value))
    assert caught.value.field == TENANT
