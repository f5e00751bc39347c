"""`?`: the keys that work on the screen one comes from, with the names by which they can be changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import bindings
from ..cells import wrapped
from ..widgets.dialogs import Note

if TYPE_CHECKING:
    from textual.app import App
    from textual.screen import Screen

    from ..cells import Line

LEGEND = (
    ("prompt", "its prompt is being read, or computed"),
    ("slot", "every slot of its model is taken"),
    ("turn", "others are served before it: by class, then by what their tenants have had, then by deadline"),
    ("memory", "too few KV cells of its model are free"),
    ("load", "its model is being loaded, or on its way out"),
    ("room", "other models hold the memory that its model needs"),
    ("pressure", "the machine is short of memory; nothing is loaded"),
    ("predecessor", "the request that it supersedes has not let go yet"),
    ("client", "it runs, but its client takes nothing of what is there"),
    ("! parking", "a state: it makes way, and waits again as soon as its worker has let go of it"),
)
INDENT = 16


def guide(app: App[None], screen: Screen[Any], path: str) -> Note:
    """Made of the keys that are active there, so it says no more and no less than what works."""
    keys = [*_keys(app, screen, "On this screen", everywhere=False), *_keys(app, screen, "Everywhere", everywhere=True)]

    def lines(width: int) -> list[Line]:
        legend: list[Line] = [(("Why a request waits", "title"),)]
        for word, meaning in LEGEND:
            head, *rest = wrapped(meaning, max(10, width - INDENT))
            legend.append(((f"  {word:<{INDENT - 2}}", "warn"), *head))
            legend += [((" " * INDENT, ""), *line) for line in rest]
        where = wrapped(f"The names at the right are those of [keys] in {path}", width, "dim")
        return [*keys, *legend, (), *where]

    return Note("Keys", lines)


def _keys(app: App[None], screen: Screen[Any], heading: str, *, everywhere: bool) -> list[Line]:
    shown: dict[str, list[str]] = {}
    what: dict[str, str] = {}
    common = {binding.id for binding in bindings.EVERYWHERE}
    for active in screen.active_bindings.values():
        binding = active.binding
        if binding.id and active.enabled and (binding.id in common) is everywhere:
            display = app.get_key_display(binding)
            if display not in shown.setdefault(binding.id, []):
                shown[binding.id].append(display)
            what[binding.id] = binding.description
    rows: list[Line] = [((heading, "title"),)]
    for name, keys in shown.items():
        rows.append(((f"  {' '.join(keys):<{INDENT - 2}}", "key"), (f"{what[name]:<22}", ""), (name, "dim")))
    if everywhere:
        rows.append(((f"  {'^p':<{INDENT - 2}}", "key"), ("every action by its name", "")))
    return [*rows, ()]
