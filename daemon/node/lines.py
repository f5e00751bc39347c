"""Durable jobs that wait outside of the scheduler: it gets a few of each group at a time, and its queue stays short."""

from __future__ import annotations

from collections import Counter
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .book import Book, Group

    Entry = tuple[float, str, Book]  # when it came, and its id: the order in a line

AT_ONCE = 32  # that are read from the disk in one go
REST_S = 1.0  # of a group, or a job, that was sent away


class Lines:
    """One for each group, in the order of arrival. Groups take turns."""

    def __init__(self) -> None:
        self._lines: dict[Group, list[Entry]] = {}
        self._n_taken: Counter[Group] = Counter()
        self._taken: dict[Book, Group] = {}  # as it was then: a job may be moved to another class
        self._rests_until_s: dict[Group, float] = {}
        self._apart: list[Entry] = []  # a heap of those that rest alone, by until when
        self._waits: set[Book] = set()  # in a line, or apart

    def __bool__(self) -> bool:
        return bool(self._lines or self._apart)

    def __contains__(self, book: Book) -> bool:
        """It waits here, or is taken and not released."""
        return book in self._waits or book in self._taken

    def add(self, book: Book) -> None:
        self._waits.add(book)
        heappush(self._lines.setdefault(book.group, []), (book.row.created_s, book.row.id, book))

    def put_back(self, books: Iterable[Book]) -> None:
        """Taken, but not kept."""
        for book in books:
            self.release(book)
            self.add(book)

    def send_away(self, book: Book, now_s: float, *, alone: bool = False) -> None:
        """It was not let in: its whole group rests, or it alone and those behind it go first."""
        self.release(book)
        if alone:
            self._waits.add(book)
            heappush(self._apart, (now_s + REST_S, book.row.id, book))
        else:
            self.add(book)
            self._rests_until_s[book.group] = now_s + REST_S

    def move(self, book: Book, was: Group) -> None:
        """It may be of another group now."""
        if book.group == was:
            return
        line = self._lines.get(was, [])
        left = [entry for entry in line if entry[2] is not book]
        if len(left) == len(line):
            return  # it is apart, or taken
        del self._lines[was]
        if left:
            heapify(left)
            self._lines[was] = left
        self.add(book)

    def rests(self, group: Group, now_s: float) -> bool:
        return self._rests_until_s.get(group, 0.0) > now_s

    def take(self, room: Callable[[Group], int], now_s: float) -> list[Book]:
        """The next ones; `room`: how many of a group may be taken and not released at a time."""
        while self._apart and self._apart[0][0] <= now_s:
            self.add(heappop(self._apart)[2])
        taken: list[Book] = []
        for group in list(self._lines):
            if len(taken) >= AT_ONCE:
                break
            if self.rests(group, now_s):
                continue
            self._rests_until_s.pop(group, None)
            line = self._lines.pop(group)
            n_most = room(group)
            while line and len(taken) < AT_ONCE and (line[0][2].end or self._n_taken[group] < n_most):
                book = heappop(line)[2]
                self._waits.discard(book)
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
