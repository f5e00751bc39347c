"""Events are a closed list, in the words that clients see."""

from __future__ import annotations

import pytest

from inferd.daemon.domain.event import Event, Kind, Severity


@pytest.mark.parametrize("word", [*Kind, *Severity])
def test_a_word_is_the_name_in_lower_case(word: Kind | Severity) -> None:
    assert word.value == word.name.lower()


def test_severities_are_in_the_order_of_what_they_matter() -> None:
    assert [severity.value for severity in Severity] == ["info", "warning", "error"]


def test_what_an_event_is_not_about_is_empty() -> None:
    event = Event(1, 2.0, Severity.INFO, Kind.SERVING, "requests are taken in again")
    assert (event.model, event.request_id, event.tenant, event.device) == ("", "", "", "")
