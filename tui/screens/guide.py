"""`?`: the keys that work on the screen one comes from, with the names by which they can be changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import bindings
from ..widgets.dialogs import Note

if TYPE_CHECKING:
    from textual.app import App
    from textual.screen import Screen

    from ..cells import Line

LEGEND = (
    ("prompt", "its prompt is being read"),
    ("slot", "every slot of its model is taken"),
    ("turn", "others are served before it: by class, then by what their tenants have had, then by deadline"),
    ("memory", "too few KV cells of its model are free"),
    ("load", "its model is being loaded, or on its way out"),
    ("room", "other models hold the memory that its model needs"),
    ("pressure", "the machine is short of memory; nothing is loaded"),
    ("predecessor", "the request that it supersedes has not let go yet"),
)


def guide(app: App[None], screen: Screen[Any], path: str) -> Note:
    """Made of the keys that are active there, so it says no more and no less than what works."""
    lines: list[Line] = []
    everywhere = {binding.id for binding in bindings.EVERYWHERE}
    for heading, inside in (("On this screen", False), ("Everywhere", True)):
        lines.append(((heading, "title"),))
        seen: dict[str, list[str]] = {}
        what: dict[str, str] = {}
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.id and active.enabled and (binding.id in everywhere) is inside:
                seen.setdefault(binding.id, []).append(app.get_key_display(binding))
                what[binding.id] = binding.description
        for name, keys in seen.items():
            lines.append(((f"  {' '.join(keys):<14}", "key"), (f"{what[name]:<22}", ""), (name, "dim")))
        lines.append(())
    lines.append((("Why a request waits", "title"),))
    lines += [((f"  {word:<14}", "warn"), (meaning, "")) for word, meaning in LEGEND]
    lines += [(), ((f"The names at the right are those of [keys] in {path}.", "dim"),)]
    return Note("Keys", lines)
