"""Durable jobs that wait outside of the scheduler."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.domain.durable import DurableJob, State
from inferd.daemon.domain.request import Priority
from inferd.daemon.node.book import Book
from inferd.daemon.node.lines import AT_ONCE, REST_S, Lines

if TYPE_CHECKING:
    from inferd.daemon.node.book import Group


COUNT = itertools.count()


def book(name: str, tenant: str = "t") -> Book:
    """The next one that comes."""
    return Book(DurableJob(id=name, tenant=tenant, model="m", priority=Priority.BATCH, created_s=float(next(COUNT))))


def names(books: list[Book]) -> list[str]:
    return [it.row.id for it in books]


def test_they_come_in_order_while_there_is_room() -> None:
    lines = Lines()
    books = [book(f"j{i}") for i in range(5)]
    for it in books:
        lines.add(it)
    assert names(lines.take(lambda group: 2, 0.0)) == ["j0", "j1"]
    assert lines.take(lambda group: 2, 0.0) == []
    lines.release(books[0])
    lines.release(books[0])  # twice is once
    assert names(lines.take(lambda group: 2, 0.0)) == ["j2"]
    lines.put_back([books[2]])
    lines.put_back([books[1]])
    assert names(lines.take(lambda group: 9, 0.0)) == ["j1", "j2", "j3", "j4"]
    assert not lines


def test_a_group_that_was_sent_away_rests() -> None:
    lines = Lines()
    lines.add(book("j0"))
    taken = lines.take(lambda group: 9, 0.0)
    lines.send_away(taken[0], 5.0)
    assert lines.rests(taken[0].group, 5.5)
    lines.add(book("other", "u"))
    assert names(lines.take(lambda group: 9, 5.0)) == ["other"]
    assert lines.take(lambda group: 9, 5.0 + REST_S / 2) == []
    assert names(lines.take(lambda group: 9, 5.0 + REST_S)) == ["j0"]


def test_one_that_rests_alone_lets_the_others_go_first() -> None:
    lines = Lines()
    for i in range(3):
        lines.add(book(f"j{i}"))
    first, *_ = lines.take(lambda group: 1, 0.0)
    lines.send_away(first, 5.0, alone=True)
    assert names(lines.take(lambda group: 2, 5.0)) == ["j1", "j2"]
    assert lines
    assert lines.take(lambda group: 9, 5.0 + REST_S / 2) == []
    assert names(lines.take(lambda group: 9, 5.0 + REST_S)) == ["j0"]
    assert not lines


def test_those_that_ended_while_they_waited_go() -> None:
    lines = Lines()
    books = [book(f"j{i}") for i in range(3)]
    for it in books:
        lines.add(it)
    books[0].end = books[2].end = {"state": State.CANCELLED}
    assert names(lines.take(lambda group: 9, 0.0)) == ["j1"]
    assert not lines


def test_groups_take_turns() -> None:
    lines = Lines()
    for i in range(2 * AT_ONCE):
        lines.add(book(f"many{i}"))
    lines.add(book("one", "u"))
    assert len(lines.take(lambda group: 999, 0.0)) == AT_ONCE
    assert "one" in names(lines.take(lambda group: 999, 0.0))


@given(st.lists(st.tuples(st.sampled_from(["add", "take", "release", "put_back"]), st.sampled_from("tu")), max_size=40))
def test_none_is_lost_and_none_is_taken_twice(moves: list[tuple[str, str]]) -> None:
    lines, waiting, taken = Lines(), Counter[str](), []
    for n, (kind, tenant) in enumerate(moves):
        match kind:
            case "add":
                lines.add(book(f"{tenant}{n}", tenant))
                waiting[tenant] += 1
            case "take":
                new = lines.take(lambda group: 3, 0.0)
                taken += new
                waiting.subtract(it.row.tenant for it in new)
            case _ if taken:
                it = taken.pop()
                if kind == "release":
                    lines.release(it)
                else:
                    lines.put_back([it])
                    waiting[it.row.tenant] += 1
        assert len(set(map(id, taken))) == len(taken)
        assert max(Counter(it.row.tenant for it in taken).values(), default=0) <= 3
    for it in taken:
        lines.release(it)
    left = Counter[str]()
    while new := lines.take(lambda group: 99, 0.0):
        left.update(it.row.tenant for it in new)
    assert left == +waiting


def test_a_class_that_changed_meanwhile_does_not_matter() -> None:
    lines, one = Lines(), book("j0")
    lines.add(one)
    lines.take(lambda group: 1, 0.0)
    one.row = DurableJob(id="j0", tenant="t", model="m", priority=Priority.NORMAL, created_s=0.0)
    asked: list[Group] = []
    lines.put_back([one])
    assert lines.take(lambda group: asked.append(group) or 1, 0.0) == [one]  # type: ignore[func-returns-value]
    assert asked == [("m", "t", Priority.NORMAL)]


def test_one_that_is_moved_waits_in_its_new_line_where_it_would_have_been() -> None:
    lines = Lines()
    early, late, other = book("early"), book("late"), book("other")
    chat = book("chat")
    chat.row = msgspec.structs.replace(chat.row, priority=Priority.INTERACTIVE)
    for it in (early, late, other, chat):
        lines.add(it)
    was = early.group
    lines.move(early, was)  # as it was: nothing happens
    early.row = msgspec.structs.replace(early.row, priority=Priority.INTERACTIVE)
    lines.move(early, was)
    assert early in lines
    taken = lines.take(lambda group: 1 if group == was else 9, 0.0)
    assert sorted(names(taken)) == ["chat", "early", "late"]
    assert taken.index(early) < taken.index(chat)
    lines.release(early)
    assert early not in lines
    assert names(lines.take(lambda group: 9, 0.0)) == ["other"]


def test_the_last_of_a_line_leaves_none_behind() -> None:
    lines = Lines()
    only = book("only")
    lines.add(only)
    was = only.group
    only.row = msgspec.structs.replace(only.row, priority=Priority.NORMAL)
    lines.move(only, was)
    assert names(lines.take(lambda group: 0 if group == was else 1, 0.0)) == ["only"]
    assert not lines
    lines.move(only, was)  # it is taken
    assert not lines
