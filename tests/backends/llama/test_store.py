"""Blocks of computed tokens in host RAM: their names, who finds them, and who goes first."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferd.backends.llama.pace import BLOCK
from inferd.backends.llama.store import Store, names

TOKENS = list(range(5 * BLOCK))


def state(n_bytes: int = 100) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.zeros(n_bytes, np.uint8)


def filled(limit_bytes: int, *texts: list[bytes]) -> Store:
    store = Store(limit_bytes)
    for text in texts:
        for name in text:
            store.put(name, state())
        store.touch(text)
    return store


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
    assert len(store.find(text)) == 3
    assert store.find(text[1:]) == store.find(text)[1:]
    assert store.find(names("other", TOKENS, len(TOKENS))) == []
    assert store.missing(text) == [3, 4]


def test_the_text_used_least_lately_goes_first_and_its_end_before_its_beginning() -> None:
    old, new = names("old", TOKENS, len(TOKENS)), names("new", TOKENS, len(TOKENS))
    store = filled(800, old, new)
    assert store.n_bytes == 800
    assert (len(store.find(old)), len(store.find(new))) == (3, 5)
    store.find(old)
    store.put(b"another", state(500))
    assert (len(store.find(old)), len(store.find(new))) == (3, 0)


def test_of_a_text_that_is_too_long_the_beginning_is_kept() -> None:
    text = names("t", TOKENS, len(TOKENS))
    store = Store(350)
    assert store.as_many_as_fit(text) == text  # how large a block is shows with the first
    for _ in range(2):
        fit = store.as_many_as_fit(text)
        store.touch(fit)
        for i in reversed(store.missing(fit)):
            store.put(fit[i], state())
    assert len(store.find(text)) == 3


def test_what_is_larger_than_all_there_is_is_not_kept() -> None:
    store = filled(150, [b"a"])
    store.put(b"b", state(151))
    assert (store.missing([b"a", b"b"]), store.n_bytes) == ([1], 100)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60)), max_size=60))
def test_the_books_balance_within_the_limit(puts: list[tuple[int, int]]) -> None:
    store = Store(100)
    for name, n_bytes in puts:
        store.put(bytes([name]), state(n_bytes))
        assert store.n_bytes == sum(block.nbytes for block in store._blocks.values()) <= 100
