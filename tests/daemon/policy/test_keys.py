"""The newest request of a key is the one that counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferd.daemon.policy.keys import Keys
from inferd.tests.daemon.policy.tools import job

if TYPE_CHECKING:
    from inferd.daemon.domain.request import Job


def typed(tenant: str = "t", key: str = "editor", parent_id: str = "") -> Job:
    return job(tenant=tenant, supersede_key=key, parent_id=parent_id)


def superseded(keys: Keys, new: Job) -> list[Job]:
    return [cancel.job for cancel in keys.arrive(new)]


def test_a_newer_one_ends_the_older_one() -> None:
    keys, first, second = Keys(), typed(), typed()
    assert superseded(keys, first) == []
    assert superseded(keys, second) == [first]


def test_requests_without_a_key_end_nobody() -> None:
    keys = Keys()
    assert superseded(keys, typed(key="")) == superseded(keys, typed(key="")) == []


def test_another_tenant_is_not_concerned() -> None:
    keys = Keys()
    keys.arrive(typed(tenant="a"))
    assert superseded(keys, typed(tenant="b")) == []


def test_the_choices_of_one_call_do_not_end_each_other() -> None:
    keys, first = Keys(), typed()
    second = typed(parent_id=first.id)
    keys.arrive(first)
    assert superseded(keys, second) == []
    assert superseded(keys, typed()) == [first, second]


def test_it_waits_until_the_older_one_has_let_go_of_its_slot() -> None:
    keys, first, second, third = Keys(), typed(), typed(), typed()
    keys.arrive(first)
    keys.start(first)
    keys.arrive(second)
    keys.arrive(third)
    assert keys.blocked(second)
    assert keys.blocked(third)
    assert keys.let_go(first) == [third]
    assert not keys.blocked(third)


def test_nothing_is_kept_of_what_is_over() -> None:
    keys, first = Keys(), typed()
    keys.arrive(first)
    keys.start(first)
    keys.let_go(first)
    keys.forget(first)
    assert not keys._newest
    assert not keys._holding
