"""Blocks of computed tokens in host RAM: their names, who finds them, who goes first, and what the daemon has."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends import memfd
from inferd.backends.llama import store as module
from inferd.backends.llama.pace import BLOCK
from inferd.backends.llama.store import MAX_BLOCKS, Store, names
from inferd.backends.messages import Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TOKENS = list(range(5 * BLOCK))
State = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def state(name: bytes, n_bytes: int = 100) -> State:
    """Bytes that tell whose they are."""
    return np.frombuffer((name * n_bytes)[:n_bytes], np.uint8)


def save(store: Store, text: list[bytes], n_bytes: int = 100, warm_s: float = 0.0) -> None:
    store.save("t", text, lambda i: state(text[i], n_bytes), warm_s)


def filled(limit_bytes: int, *texts: list[bytes]) -> Store:
    store = Store(limit_bytes)
    for text in texts:
        save(store, text)
    return store


class Shelf:
    """The daemon's part, without a daemon: it has every file that was not dropped."""

    def __init__(self) -> None:
        self.files: dict[bytes, tuple[Run, int]] = {}
        self.dropped: list[bytes] = []
        self.wanted: list[bytes] = []
        self.asked: list[list[bytes]] = []

    def keep(self, run: Run, fd: int) -> None:
        if run.names[0] in self.files:
            os.close(self.files[run.names[0]][1])
        self.files[run.names[0]] = run, os.dup(fd)

    def drop(self, name: bytes, *, wanted: bool) -> None:
        self.dropped.append(name)
        self.wanted += [name] if wanted else []

    def fetch(self, names: Sequence[bytes]) -> None:
        self.asked.append(list(names))

    def again(self) -> list[tuple[Run, int]]:
        return [(run, os.dup(fd)) for run, fd in self.files.values()]

    def close(self) -> None:
        for _, fd in self.files.values():
            os.close(fd)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    yield made
    made.close()


@given(st.integers(0, 5 * BLOCK), st.integers(0, 5 * BLOCK - 1))
def test_a_name_stands_for_all_tokens_up_to_its_end(n_tokens: int, changed: int) -> None:
    other = [*TOKENS[:changed], -1, *TOKENS[changed + 1 :]]
    ours, theirs = names("t", TOKENS, n_tokens), names("t", other, n_tokens)
    assert len(ours) == n_tokens // BLOCK
    n_same = min(changed // BLOCK, len(ours))
    assert ours[:n_same] == theirs[:n_same]
    assert not set(ours[n_same:]) & set(theirs)


def test_another_salt_has_other_names() -> None:
    assert not set(names("one", TOKENS, len(TOKENS))) & set(names("two", TOKENS, len(TOKENS)))


def test_how_a_block_was_computed_is_in_its_name() -> None:
    whole, small = names("t", TOKENS, 2 * BLOCK, n_whole=2 * BLOCK), names("t", TOKENS, 2 * BLOCK, n_whole=BLOCK)
    assert whole[0] == small[0]
    assert whole[1] != small[1]
    assert names("t", TOKENS, BLOCK)[0] not in whole


def test_a_text_is_found_from_its_beginning_on() -> None:
    text = names("t", TOKENS, len(TOKENS))
    store = filled(10_000, text[:3])
    assert [bytes(found) for found in store.find(text)] == [bytes(state(name)) for name in text[:3]]
    assert [bytes(found) for found in store.find(text[1:])] == [bytes(state(name)) for name in text[1:3]]
    assert store.find(names("other", TOKENS, len(TOKENS))) == []
    assert store.missing(text) == [3, 4]


def test_what_is_here_already_is_not_saved_again() -> None:
    text = names("t", TOKENS, len(TOKENS))
    store = filled(10_000, text[:3], text[:4], text)
    assert store.n_bytes == 500
    assert len(store.find(text)) == 5


def test_the_text_used_least_lately_goes_first_and_its_end_before_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_BLOCKS", 1)
    old, new = names("old", TOKENS, len(TOKENS)), names("new", TOKENS, len(TOKENS))
    store = filled(800, old, new)
    assert store.n_bytes == 800
    assert (len(store.find(old)), len(store.find(new))) == (3, 5)
    store.find(old)
    save(store, [b"another%d" % i for i in range(5)])
    assert (len(store.find(old)), len(store.find(new))) == (3, 0)


def test_what_is_warm_goes_last_and_only_as_long_as_it_is_warm() -> None:
    now_s = 0.0
    store = Store(400, clock=lambda: now_s)
    warm, other, third = ([b"%s%d" % (name, i) for i in range(2)] for name in (b"w", b"o", b"t"))
    save(store, warm, warm_s=10.0)
    save(store, other)
    save(store, third)
    assert [len(store.find(text)) for text in (warm, other, third)] == [2, 0, 2]
    now_s = 11.0
    store.touch(third)
    save(store, other)
    assert [len(store.find(text)) for text in (warm, other, third)] == [0, 2, 2]


def test_of_a_text_that_is_too_long_the_beginning_is_kept() -> None:
    text = names("t", TOKENS, len(TOKENS))
    store = Store(350)
    assert store.as_many_as_fit(text) == text  # how large a block is shows with the first
    for _ in range(2):
        save(store, store.as_many_as_fit(text))
    assert len(store.find(text)) == 3


def test_a_run_has_a_limit_so_that_long_texts_are_dropped_in_parts(shelf: Shelf) -> None:
    text = [b"%d" % i for i in range(2 * MAX_BLOCKS + 3)]
    save(Store(10**6, shelf), text)  # type: ignore[arg-type]
    assert sorted(len(run.names) for run, _ in shelf.files.values()) == [3, MAX_BLOCKS, MAX_BLOCKS]


def test_the_daemon_has_what_is_here_and_hears_what_is_dropped(shelf: Shelf) -> None:
    store = Store(250, shelf)  # type: ignore[arg-type]
    save(store, [b"a0", b"a1"])
    save(store, [b"b0", b"b1"])
    assert shelf.dropped == [b"a0"]
    run, fd = shelf.files[b"a0"]
    assert run == Run([b"a0", b"a1"], 100, "t")
    assert bytes(memfd.readable(fd, 200)[:100]) == bytes(state(b"a0"))


def test_the_daemon_hears_whether_anybody_wanted_it_again(shelf: Shelf) -> None:
    store = Store(300, shelf)  # type: ignore[arg-type]
    for name in (b"once", b"twice"):
        save(store, [name])
    save(store, [b"session"], warm_s=-1.0 + store._clock())
    store.find([b"twice"])
    for i in range(3):
        save(store, [b"%d" % i])
    assert (shelf.dropped, shelf.wanted) == ([b"once", b"session", b"twice"], [b"session", b"twice"])


def test_the_next_worker_goes_on_with_the_files_of_the_last(shelf: Shelf) -> None:
    text = [b"%d" % i for i in range(20)]
    save(Store(10_000, shelf), text)  # type: ignore[arg-type]
    after = Shelf()
    store = Store(10_000, after)  # type: ignore[arg-type]
    store.on_given(shelf.again(), [])
    assert [bytes(found) for found in store.find(text)] == [bytes(state(name)) for name in text]
    assert (store.n_bytes, after.files) == (2000, {})
    store.on_given(shelf.again(), [])
    assert store.n_bytes == 2000


def test_what_the_daemon_has_is_asked_for_once_and_found_when_it_came(shelf: Shelf) -> None:
    text = [b"%d" % i for i in range(6)]
    save(Store(10_000, shelf), text[:4])  # type: ignore[arg-type]
    asking = Shelf()
    store = Store(10_000, asking)  # type: ignore[arg-type]
    assert (store.has_more, store.lacks(text)) == (False, [])
    store.on_stored(text[:4], 100)
    assert (store.has_more, store.lacks(text)) == (True, text[:4])
    for _ in range(2):
        store.fetch(store.lacks(text))
    assert asking.asked == [text[:4]]
    store.on_given(shelf.again(), [])
    assert (len(store.find(text)), store.lacks(text), store.n_given) == (4, [], 1)


def test_what_is_not_to_be_had_is_not_asked_for_again(shelf: Shelf) -> None:
    store = Store(10_000, shelf)  # type: ignore[arg-type]
    store.on_stored([b"a", b"b"], 100)
    store.fetch([b"a", b"b"])
    store.on_given([], [b"a", b"b"])
    assert (store.lacks([b"a", b"b"]), store.n_given) == ([], 1)


@pytest.mark.parametrize("fault", ["size", "unsealed", "block"])
def test_a_file_that_is_not_what_it_is_said_to_be_is_not_used(shelf: Shelf, fault: str) -> None:
    store = filled(10_000, [b"x"])
    fd = memfd.create(100 if fault != "size" else 99)
    if fault != "unsealed":
        memfd.seal(fd)
    run = Run([b"a"], 100, "t") if fault != "block" else Run([b"a", b"b"], 50, "t")
    store.on_given([(run, fd)], [])
    assert (store.find([b"a"]), store.n_bytes) == ([], 100)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_without_room_nothing_is_kept() -> None:
    store = Store(0)
    save(store, [b"a"])
    assert (store.missing([b"a"]), store.n_bytes) == ([0], 0)
    small = Store(99)
    save(small, [b"a"])
    assert (small.missing([b"a"]), small.n_bytes) == ([0], 0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), st.booleans()), max_size=40), st.integers(0, 2**32))
def test_the_books_balance_within_the_limit(saves: list[tuple[int, int, bool]], seed: int) -> None:
    draw, shelf = random.Random(seed), Shelf()
    store = Store(1000, shelf)  # type: ignore[arg-type]
    for first, n, again in saves:
        save(store, [b"%d" % (first + i) for i in range(n)])
        if again:
            run, fd = draw.choice([*shelf.files.values()])
            store.on_given([(run, os.dup(fd))], [])
        assert store.n_bytes == sum(held.run.n_bytes for held in store._held.values()) <= 1000
        for name, (held, i) in store._at.items():
            assert held.run.names[i] == name
            assert bytes(held.rows[i]) == bytes(state(name))
            assert store._held[held.run.names[0]] is held
        assert {name for held in store._held.values() for name in held.run.names} == set(store._at)
    shelf.close()


def test_blocks_in_two_runs_are_there_as_long_as_one_of_them_is(shelf: Shelf) -> None:
    text = [b"%d" % i for i in range(8)]
    apart = Shelf()
    save(Store(10_000, apart), text[2:5])  # type: ignore[arg-type]
    store = Store(800, shelf)  # type: ignore[arg-type]
    save(store, text[:4])
    store.on_given(apart.again(), [])
    assert (len(store.find(text)), store.n_bytes) == (5, 700)
    store.touch(text[4:])
    save(store, [b"x", b"y"])  # what was used least lately goes: the first four
    assert shelf.dropped == [b"0"]
    assert (len(store.find(text[2:])), store.missing(text)) == (3, [0, 1, 5, 6, 7])
    save(store, [b"z%d" % i for i in range(8)])
    assert (store.n_bytes, len(store._at)) == (800, 8)
    apart.close()


def test_what_was_asked_for_stays_until_it_can_be_used_and_pushes_out_no_beginning_of_its_own(shelf: Shelf) -> None:
    now_s = 0.0
    text = [b"%d" % i for i in range(4)]
    apart = Shelf()
    save(Store(10_000, apart), text[2:])  # type: ignore[arg-type]
    store = Store(800, shelf, clock=lambda: now_s)  # type: ignore[arg-type]
    save(store, text[:2])
    for i in range(3):
        save(store, [b"w%d" % i, b"v%d" % i], warm_s=600.0)
    store.on_stored(text[2:], 100)
    wanted = store.lacks(text)
    store.fetch(wanted)
    assert store.asks(wanted)
    store.on_given(apart.again(), [])
    assert not store.asks(wanted)
    assert len(store.find(text)) == 4
    apart.close()


def test_a_new_turn_of_a_session_is_kept_where_others_are_warm(shelf: Shelf) -> None:
    store = Store(800, shelf, clock=lambda: 0.0)  # type: ignore[arg-type]
    for i in range(4):
        save(store, [b"w%d" % i, b"v%d" % i], warm_s=600.0)
    text = [b"%d" % i for i in range(4)]
    store.save("t", text, lambda i: state(text[i]), 600.0)
    assert len(store.find(text)) == 4


def test_saving_ends_in_time_with_the_beginning_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BLOCKS", 2)
    now_s = iter(range(100))
    store = Store(10_000, clock=lambda: float(next(now_s)))
    text = [b"%d" % i for i in range(40)]
    store.save("t", text, lambda i: state(text[i]), end_s=6.0)
    assert 2 <= len(store.find(text)) < 20
