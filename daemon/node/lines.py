"""Durable jobs that wait outside of the scheduler: it gets a few of each group at a time, and its queue stays short."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .book import Book, Group

AT_ONCE = 32  # that are read from the disk in one go
REST_S = 1.0  # of a group that was sent away


class Lines:
    """One for each group, in the order of arrival. Groups take turns."""

    def __init__(self) -> None:
        self._lines: dict[Group, deque[Book]] = {}
        self._n_taken: Counter[Group] = Counter()
        self._taken: dict[Book, Group] = {}  # as it was then: a job may be moved to another class
        self._rests_until_s: dict[Group, float] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, book: Book) -> None:
        self._lines.setdefault(book.group, deque()).append(book)

    def put_back(self, books: Iterable[Book], now_s: float | None = None) -> None:
        """Taken, but not kept; the first first. With a time its group rests from then on."""
        for book in reversed(list(books)):
            self.release(book)
            self._lines.setdefault(book.group, deque()).appendleft(book)
            if now_s is not None:
                self._rests_until_s[book.group] = now_s + REST_S

    def take(self, room: Callable[[Group], int], now_s: float) -> list[Book]:
        """The next ones; `room`: how many of a group may be taken and not released at a time."""
        taken: list[Book] = []
        for group in list(self._lines):
            if len(taken) >= AT_ONCE:
                break
            if self._rests_until_s.get(group, 0.0) > now_s:
                continue
            self._rests_until_s.pop(group, None)
            line = self._lines.pop(group)
            n_most = room(group)
            while line and len(taken) < AT_ONCE and (line[0].end or self._n_taken[group] < n_most):
                book = line.popleft()
                if book.end is None:  # else it ended while it waited
                    self._n_taken[group] += 1
                    self._taken[book] = group
                    taken.append(book)
            if line:
                self._lines[group] = line  # behind the others
        return taken

    def release(self, book: Book) -> None:
        """The scheduler does not have it any more."""
        if (group := self._taken.pop(book, None)) is not None:
            self._n_taken[group] -= 1
            if not self._n_taken[group]:
                del self._n_taken[group]
