from __future__ import annotations

from collections import Counter

from inferd.tui import bindings


def test_every_key_has_a_name_of_its_own() -> None:
    names = [binding.id for binding in bindings.NAMED]
    assert None not in names
    assert max(Counter(names).values()) == 1


def test_one_key_has_one_meaning() -> None:
    """On whatever screen; `escape` always leads back."""
    meanings: dict[str, set[str]] = {}
    for binding in bindings.NAMED:
        for key in binding.key.split(","):
            meanings.setdefault(key, set()).add(binding.action)
    assert {key: actions for key, actions in meanings.items() if len(actions) > 1} == {"escape": {"back", "leave"}}


def test_what_changes_something_is_known_as_such() -> None:
    actions = {binding.action.partition("(")[0] for binding in bindings.NAMED}
    assert actions >= bindings.ACTING
