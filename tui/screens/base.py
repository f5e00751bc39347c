"""What every screen of the monitor has: the app, a title, the keys that work on it, a card when it is small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.events import Key
from textual.screen import Screen
from textual.widgets import Static

from .. import bindings
from ..panels import summary
from ..state import Link
from ..widgets.canvas import STYLE_CLASSES, Canvas, Lines
from ..widgets.keys import Keys

if TYPE_CHECKING:
    from textual.binding import Binding

    from ..app import Monitor
    from ..cells import Line

ORDER = {binding.id: i for i, binding in enumerate(bindings.IMPORTANT)}
TOO_SMALL = "too small\n\ninferd top needs 60 columns and 20 lines;\nthis terminal has {width} and {height}"


class Looking(Screen[None]):
    """Who inherits composes `#top`, `#body`, Keys and `#small`, and paints itself in `paint`."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*STYLE_CLASSES}

    def __init__(self) -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-narrow"), (120, "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-flat"), (20, "-short"), (36, "-tall")]
        self._resuming = False

    @property
    def monitor(self) -> Monitor:
        from ..app import Monitor

        assert isinstance(self.app, Monitor)
        return self.app

    @property
    def is_small(self) -> bool:
        return self.has_class("-tiny") or self.has_class("-flat")

    @property
    def is_large(self) -> bool:
        return self.has_class("-wide") and self.has_class("-tall")

    @property
    def is_typing(self) -> bool:
        """Keys are letters of something."""
        return False

    def show(self) -> None:
        """The state as it is now. Cheap when little has changed."""
        if self.is_mounted and not self.is_small and self.query("#top"):
            self.paint()

    def paint(self) -> None:
        raise NotImplementedError

    def focus_body(self) -> None:
        """Where keys go when they went nowhere."""

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
        """As many as there is room for, the most important first."""
        keys = [(self.app.get_key_display(b), b.description, b.key) for b in self.shown_bindings()]
        for bar in self.query(Keys):
            bar.show_keys(keys)

    def shown_bindings(self) -> list[Binding]:
        """Those that do something here, each once."""
        found: dict[str, Binding] = {}
        for active in self.active_bindings.values():
            binding = active.binding
            if binding.show and binding.id and active.enabled:
                found.setdefault(binding.id, binding)
        return sorted(found.values(), key=lambda binding: ORDER.get(binding.id, len(ORDER)))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Nothing is done to what cannot be seen, or while one types: what is typed fast may come here first."""
        if (action in bindings.ACTING and self.is_small) or self.is_typing:
            return False
        return self.monitor.check_action(action, parameters)

    def on_screen_resume(self) -> None:
        self.show()  # before it is painted, so that this is done once
        self._resume_soon()

    def on_resize(self, event: Any) -> None:
        width, height = event.size
        for card in self.query("#small").results(Static):
            card.update(TOO_SMALL.format(width=width, height=height))
        self._resume_soon()

    def _resume_soon(self) -> None:
        """It is in front, or has another size."""
        if not self._resuming:
            self._resuming = True
            self.call_after_refresh(self._resumed)

    def _resumed(self) -> None:
        self._resuming = False
        if self.is_mounted:
            if self.focused is None and self.app.app_focus and not self.is_small:
                self.focus_body()
            self.show()
            self.show_keys()

    def on_keys_pressed(self, event: Keys.Pressed) -> None:
        """As if it had been typed: through the app, as only that looks at every binding."""
        self.app.post_message(Key(event.key, None).set_sender(self.app))
