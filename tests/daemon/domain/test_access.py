"""Roles in their order, and the names of tenants and tokens."""

from __future__ import annotations

import pytest

from inferd.daemon.domain.access import MAX_NAME_CHARS, Principal, Role, check_name, check_role
from inferd.daemon.domain.errors import Code, InferdError


def test_each_role_may_what_those_before_it_may() -> None:
    roles = [Role.VIEWER, Role.USER, Role.OPERATOR, Role.ADMIN]
    for i, role in enumerate(roles):
        assert [role.covers(least) for least in roles] == [j <= i for j in range(4)]


@pytest.mark.parametrize(
    ("role", "whose"), [(Role.VIEWER, "t"), (Role.USER, "t"), (Role.OPERATOR, None), (Role.ADMIN, None)]
)
def test_operators_see_to_everybodys_requests(role: Role, whose: str | None) -> None:
    assert Principal(role, "t", "token").only_tenant == whose


@pytest.mark.parametrize("name", ["", "a" * (MAX_NAME_CHARS + 1), "a\nb", "\x00"])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(InferdError) as caught:
        check_name(name, "tenant")
    assert (caught.value.code, caught.value.field) == (Code.INVALID, "tenant")
    assert check_name("a" * MAX_NAME_CHARS, "tenant")


@pytest.mark.parametrize("name", ["", "root", "ADMIN", "x" * 1000])
def test_a_role_is_one_of_four(name: str) -> None:
    with pytest.raises(InferdError) as caught:
        check_role(name, "role")
    assert "viewer, user, operator, admin" in caught.value.message
    assert len(caught.value.message) < 200
    assert check_role("admin", "role") is Role.ADMIN
