"""The keys, each with one meaning wherever it works, and a name by which a user may give it another key."""

from __future__ import annotations

from textual.binding import Binding

QUIT = Binding("q", "quit", "quit", id="quit")
HELP = Binding("question_mark", "help", "help", key_display="?", id="help")
FREEZE = Binding("space", "freeze", "freeze", key_display="space", id="freeze")
GO = Binding("colon", "go", "go to id", key_display=":", id="go")
FASTER = Binding("plus,equals_sign", "pace(-1)", "faster", show=False, key_display="+", id="faster")
SLOWER = Binding("minus", "pace(1)", "slower", show=False, key_display="-", id="slower")
THEME = Binding("T", "theme", "theme", id="theme")
DRAIN = Binding("d", "drain", "drain", id="drain")
NAMES = ("Overview", "Queue", "Models", "Devices", "Events", "Clients")  # of the screens, by their numbers
PAGES = tuple(
    Binding(str(i), f"page({i})", name.lower(), show=False, id=f"screen_{i}") for i, name in enumerate(NAMES, start=1)
)
EVERYWHERE = (HELP, QUIT, DRAIN, FREEZE, GO, THEME, FASTER, SLOWER, *PAGES)

FILTER = Binding("slash", "filter", "filter", key_display="/", id="filter")
SORT = Binding("s", "sort", "sort", id="sort")
REVERSE = Binding("S", "reverse", "reverse", show=False, id="reverse")
COLUMNS = Binding("c", "columns", "columns", id="columns")
COPY = Binding("y", "copy", "copy id", id="copy")
BACK = Binding("escape", "back", "back", key_display="esc", show=False, id="back")
LEAVE = Binding("escape", "leave", "back", key_display="esc", id="leave")
TABLE = (FILTER, SORT, REVERSE, COLUMNS, COPY, BACK)

# Of a table that keys go to.
MOVES = (
    Binding("up,k", "move(-1)", "up", show=False, id="up"),
    Binding("down,j", "move(1)", "down", show=False, id="down"),
    Binding("pageup", "page(-1)", "page up", show=False, id="page_up"),
    Binding("pagedown", "page(1)", "page down", show=False, id="page_down"),
    Binding("home", "edge(0)", "first", show=False, id="first"),
    Binding("end,G", "edge(-1)", "last", show=False, id="last"),
)

ENTER = Binding("enter", "detail", "detail", key_display="enter", id="detail")
CANCEL = Binding("x", "cancel", "cancel", id="cancel")
PRIORITY = Binding("p", "priority", "priority", id="priority")
MARK = Binding("m", "mark", "mark", id="mark")
COMMAND = Binding("Y", "copy_command", "copy as command", id="copy_command")
REQUESTS = (ENTER, CANCEL, PRIORITY, MARK, COMMAND)

LOAD = Binding("l", "load", "load", id="load")
UNLOAD = Binding("u", "unload", "unload", id="unload")
EVICT = Binding("e", "evict", "evict now", id="evict")
PIN = Binding("i", "pin", "pin", id="pin")
MODELS = (LOAD, UNLOAD, EVICT, PIN)

GRAPHS = Binding("g", "graphs", "graphs", id="graphs")
FOLLOW = Binding("f", "follow", "follow", id="follow")
LEVEL = Binding("v", "level", "level", id="level")

NAMED = (*EVERYWHERE, *TABLE, *REQUESTS, *MODELS, GRAPHS, FOLLOW, LEVEL, LEAVE, *MOVES)
# The order in which keys are told of where there is no room for all.
_FIRST = (ENTER, CANCEL, PRIORITY, LOAD, UNLOAD, EVICT, PIN, FOLLOW, LEVEL, LEAVE, FILTER, SORT, HELP, QUIT, MARK)
IMPORTANT = (*_FIRST, DRAIN, FREEZE, GO, COPY, COLUMNS, COMMAND, GRAPHS, THEME)
ACTING = frozenset({"cancel", "priority", "load", "unload", "evict", "pin", "drain"})  # what a viewer may not
