"""Finds tool calls in the text of an answer, piece by piece; what turns out to be no call is text.

However the text is cut into pieces, what comes out is the same when it is joined. Blanks around a call belong to it.
A call is one of a known tool, and is told of as soon as its arguments begin; until then its text is held back.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ...backends.messages import MAX_LEAD
from ..domain.tools import CallPiece

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator

    from ...backends.messages import CallSyntax

    Reading = Generator[None, None, None]  # yields when it has read all there is
    Looking = Generator[None, None, str]

BLANKS = " \t\r\n"
NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class _NoCall(Exception):
    """What comes does not fit the syntax."""


class CallParser:
    """Of one answer. `new_id` makes the ids of its calls."""

    def __init__(self, syntax: CallSyntax, names: Collection[str], new_id: Callable[[], str]) -> None:
        self.n_whole = 0  # calls whose arguments have ended
        self._syntax, self._names, self._new_id = syntax, names, new_id
        self._n_calls = 0
        self._unread, self._at = "", 0  # what is kept of the text, and how much of it is read
        self._start: int | None = None  # in there: from here on it may be text after all
        self._told = False  # of a call in what is being tried
        self._ended = False
        self._since_call = False  # nothing but blanks
        self._text: list[str] = []
        self._calls: list[CallPiece] = []
        self._reading = self._read()
        next(self._reading)

    def feed(self, text: str, *, last: bool = False) -> tuple[str, list[CallPiece]]:
        """The next piece of the answer; returns what is now known to be text, and pieces of calls."""
        done = self._at if self._start is None else self._start
        self._unread = self._unread[done:] + text
        self._at -= done
        if self._start is not None:
            self._start = 0
        self._ended = last
        next(self._reading, None)
        said, calls = "".join(self._text), self._calls
        self._text, self._calls = [], []
        return said, calls

    # text

    def _read(self) -> Reading:
        if self._syntax.bare:
            self._start = 0
            if (yield from self._after_blanks()) == "{" and self._at <= MAX_LEAD:
                yield from self._try()
            else:
                self._at, self._start = 0, None
        while (yield from self._find()):
            yield from self._try()

    def _find(self) -> Generator[None, None, bool]:
        """Says the text up to where a call may begin; False at the end of the answer."""
        begin = self._syntax.begin
        while True:
            found = self._unread.find(begin, self._at)
            if found >= 0:
                self._say(len(self._unread[self._at : found].rstrip(BLANKS)))
                self._start, self._at = self._at, found + len(begin)
                return True
            rest = self._unread[self._at :]
            if self._ended:
                if rest.strip(BLANKS) or not self._since_call:
                    self._say(len(rest))
                return False
            self._say(len(rest[: len(rest) - _n_begun(rest, begin)].rstrip(BLANKS)))
            yield

    def _say(self, n_chars: int) -> None:
        if n_chars:
            self._text.append(self._unread[self._at : self._at + n_chars])
            self._at += n_chars
            self._since_call = False

    # calls

    def _try(self) -> Reading:
        """A call, or text after all. It would have begun at `_start`, and goes on here."""
        assert self._start is not None
        n_mark = self._at - self._start
        self._told = False
        try:
            yield from self._read_list() if self._syntax.listed else self._read_call()
            yield from self._read_end()
        except _NoCall:
            if self._start is not None:
                self._at = self._start
                if not self._told:
                    self._say(max(1, n_mark))  # so that the same place is not tried again
        self._start = None

    def _read_list(self) -> Reading:
        yield from self._want("[", MAX_LEAD)
        while True:
            yield from self._read_call()
            if (char := (yield from self._after_blanks())) == ",":
                self._start = self._at
            elif char != "]":
                raise _NoCall
            self._at += 1
            if char == "]":
                return

    def _read_call(self) -> Reading:
        yield from self._read_split() if self._syntax.split else self._read_object()

    def _read_end(self) -> Reading:
        end = self._syntax.end
        if end:
            self._start = self._at
            yield from self._after_blanks()
            if not (yield from self._skip(end)):
                if not (self._ended and end.startswith(self._unread[self._at :])):
                    raise _NoCall  # the model forgot it
                self._at = len(self._unread)

    def _read_split(self) -> Reading:
        """A name, a mark, arguments."""
        name = ""
        while (char := (yield from self._peek())) in NAME_CHARS:
            name += char
            self._at += 1
        if name not in self._names:
            raise _NoCall
        if self._syntax.call_id and (yield from self._skip(self._syntax.call_id)):
            while (yield from self._peek()) in NAME_CHARS:
                self._at += 1
        if not (yield from self._skip(self._syntax.split)) or (yield from self._after_blanks()) != "{":
            raise _NoCall
        self._tell(name)
        yield from self._read_arguments()

    def _read_object(self) -> Reading:
        """An object of a name, arguments, and whatever else: in this order, as the grammar of calls has them."""
        yield from self._want("{", MAX_LEAD)
        if (yield from self._key(MAX_LEAD)) != self._syntax.name_key:
            raise _NoCall
        if (yield from self._after_blanks()) != '"':
            raise _NoCall
        name = _string((yield from self._value()))
        if name not in self._names:
            raise _NoCall
        yield from self._want(",")
        if (yield from self._key()) != self._syntax.arguments_key or (yield from self._after_blanks()) != "{":
            raise _NoCall
        self._tell(name)
        yield from self._read_arguments()
        while (yield from self._after_blanks()) == ",":
            self._at += 1
            yield from self._key()
            yield from self._after_blanks()
            yield from self._value()
        yield from self._want("}")

    def _key(self, most: int | None = None) -> Looking:
        if (yield from self._after_blanks(most)) != '"':
            raise _NoCall
        key = _string((yield from self._value()))
        yield from self._want(":", most)
        return key

    def _tell(self, name: str) -> None:
        """It is a call: none of what led to it is text."""
        self._calls.append(CallPiece(self._n_calls, self._new_id(), name))
        self._n_calls += 1
        self._told = self._since_call = True
        self._start = None

    def _argue(self, text: str) -> None:
        if text:
            last = self._calls[-1] if self._calls else None
            if last is not None and last.index == self._n_calls - 1:
                last.arguments += text
            else:
                self._calls.append(CallPiece(self._n_calls - 1, arguments=text))

    # JSON

    def _read_arguments(self) -> Reading:
        yield from self._read_value(self._argue)
        self.n_whole += 1

    def _value(self) -> Looking:
        parts: list[str] = []
        yield from self._read_value(parts.append)
        return "".join(parts)

    def _read_value(self, tell: Callable[[str], None]) -> Reading:
        """One value, passed on as it comes. Its brackets are counted, no more: a grammar has seen to the rest."""
        depth, in_string, escaped = 0, False, False
        begin = self._at
        while True:
            if self._at == len(self._unread):
                tell(self._unread[begin:])
                if self._ended:
                    raise _NoCall
                yield
                begin = self._at
                continue
            char = self._unread[self._at]
            if not (in_string or depth) and char in ",:}]" + BLANKS:  # after a number or a word
                break
            self._at += 1
            if escaped:
                escaped = False
            elif in_string and char == "\\":
                escaped = True
            elif char == '"':
                in_string = not in_string
            elif not in_string and char in "{[":
                depth += 1
            elif not in_string and char in "}]":
                depth -= 1
            if not (in_string or depth) and char in '"}]':
                break
        tell(self._unread[begin : self._at])

    def _peek(self) -> Looking:
        """The next character; "" at the end of the answer."""
        while self._at == len(self._unread):
            if self._ended:
                return ""
            yield
        return self._unread[self._at]

    def _after_blanks(self, most: int | None = None) -> Looking:
        """What comes behind blanks, `most` of which are taken: as many as the grammar takes before it holds."""
        n = 0
        while (char := (yield from self._peek())) and char in BLANKS:
            self._at += 1
            n += 1
            if most is not None and n > most:
                raise _NoCall
        return char

    def _want(self, wanted: str, most: int | None = None) -> Reading:
        if (yield from self._after_blanks(most)) != wanted:
            raise _NoCall
        self._at += 1

    def _skip(self, mark: str) -> Generator[None, None, bool]:
        """Whether the mark comes; else nothing is read. Nothing from `_start` on is forgotten meanwhile."""
        for n, wanted in enumerate(mark):
            if (yield from self._peek()) != wanted:
                self._at -= n
                return False
            self._at += 1
        return True


def _string(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise _NoCall from None
    if not isinstance(value, str):
        raise _NoCall
    return value


def _n_begun(text: str, mark: str) -> int:
    """Length of the longest end of `text` that begins `mark`."""
    for n in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:n]):
            return n
    return 0
