"""What every screen of the monitor has: the way to the app, a title, and the keys that work on it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textual.screen import Screen

from .. import bindings
from ..panels import summary
from ..state import Link
from ..widgets.canvas import Canvas, Lines
from ..widgets.keys import Keys

if TYPE_CHECKING:
    from textual.binding import Binding

    from ..app import Monitor
    from ..cells import Line

FIRST = {binding.id: i for i, binding in enumerate((*bindings.REQUESTS, *bindings.MODELS, *bindings.TABLE))}


class Looking(Screen[None]):
    """Who inherits composes `#top` and Keys, and paints itself in `show`."""

    @property
    def monitor(self) -> Monitor:
        from ..app import Monitor

        assert isinstance(self.app, Monitor)
        return self.app

    def show(self) -> None:
        """The state as it is now. Cheap when little has changed."""
        raise NotImplementedError

    def show_top(self, more: list[Line]) -> None:
        monitor, width = self.monitor, self.size.width
        symbols, pace = monitor.symbols, monitor.pace_text()
        title = summary.title(monitor.shown, width, symbols, address=monitor.address, pace=pace)
        banner = summary.banner(monitor.state, monitor.now_s(), width, symbols)
        self.query_one("#top", Lines).show([title, *banner, *more])
        stale = monitor.state.link is Link.LOST
        for canvas in self.query("#body Rows, #body Lines").results(Canvas):
            canvas.set_stale(stale)

    def show_keys(self) -> None:
        """The screen's own first, then those that work everywhere."""
        keys = [(self.app.get_key_display(b), b.description, b.key) for b in self.shown_bindings()]
        self.query_one(Keys).show_keys(keys)

    def shown_bindings(self) -> list[Binding]:
        """Those that do something here, each once."""
        found: dict[str, Binding] = {}
        for active in self.active_bindings.values():
            binding = active.binding
            if binding.show and binding.id and active.enabled:
                found.setdefault(binding.id, replace(binding))
        last = len(FIRST)
        everywhere = {binding.id for binding in bindings.EVERYWHERE}
        return sorted(found.values(), key=lambda b: last if b.id in everywhere else FIRST.get(b.id, -1))

    def on_screen_resume(self) -> None:
        self.call_after_refresh(self.resumed)

    def on_resize(self, event: Any) -> None:
        self.call_after_refresh(self.resumed)

    def resumed(self) -> None:
        """It is in front, or has another size."""
        if self.is_mounted:
            self.show()
            self.show_keys()

    def on_keys_pressed(self, event: Keys.Pressed) -> None:
        self.app.simulate_key(event.key)
