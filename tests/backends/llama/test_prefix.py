"""The tree against a model that knows every path by heart, and a cache that only does what it is told."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inferd.backends.llama.prefix import Copy, PrefixTree, Remove, same

if TYPE_CHECKING:
    from inferd.backends.llama.prefix import Node

SLOTS = (0, 1, 2)  # the sequences that requests run in
SEQS = (10, 11, 12, 13)
TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=8)
KEYS = st.sampled_from(["a", "b"])


class Cache:
    """Sequences and the cells that they hold: each knows all the tokens that it was computed from."""

    def __init__(self) -> None:
        self.cells: dict[int, dict[int, tuple[object, ...]]] = defaultdict(dict)

    def compute(self, seq: int, key: object, tokens: list[int], start: int) -> None:
        assert sorted(self.cells[seq]) == list(range(start)), "a row needs all that is before it"
        self.cells[seq] |= {i: (key, *tokens[: i + 1]) for i in range(start, len(tokens))}

    def copy(self, source: int, to: int, start: int, end: int) -> None:
        assert set(range(start, end)) <= set(self.cells[source])
        self.cells[to] |= {i: self.cells[source][i] for i in range(start, end)}

    def carry_out(self, changes: list[Copy | Remove]) -> None:
        for change in changes:
            match change:
                case Copy(source, to, start, end):
                    self.copy(source, to, start, end)
                case Remove(seq, start):
                    self.cells[seq] = {i: cell for i, cell in self.cells[seq].items() if i < start}


@dataclass
class Running:
    """One request: `tokens` are computed in `slot`, and those up to `held` are the tree's."""

    slot: int
    key: str
    tokens: list[int]
    held: Node


class TreeMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tree, self.cache = PrefixTree(SEQS), Cache()
        self.running: list[Running] = []

    def longest(self, key: object, tokens: list[int]) -> int:
        """Of all that sequences hold, the longest beginning of these tokens."""
        held = (self.cache.cells[seq] for seq in SEQS)
        paths = [cells[max(cells)][1:] for cells in held if cells and cells[0][0] == key]
        return max((same(list(path), tokens) for path in paths), default=0)  # type: ignore[arg-type]

    @precondition(lambda self: len(self.running) < len(SLOTS))
    @rule(key=KEYS, tokens=TOKENS)
    def begin(self, key: str, tokens: list[int]) -> None:
        known = self.longest(key, tokens)
        slot = min(set(SLOTS) - {r.slot for r in self.running})
        assert self.tree.n_known(key, tokens) == known
        self.tree.check_integrity()
        held = self.tree.lock(key, tokens)
        assert held.end == known
        if known:
            source = self.tree.source(held)
            assert source is not None
            self.cache.copy(source, slot, 0, known)
        self.running.append(Running(slot, key, tokens[:known], held))
        self.compute(self.running[-1], tokens[known:])

    @precondition(lambda self: self.running)
    @rule(tokens=TOKENS, data=st.data())
    def go_on(self, tokens: list[int], data: st.DataObject) -> None:
        self.compute(data.draw(st.sampled_from(self.running)), tokens)

    def compute(self, r: Running, tokens: list[int]) -> None:
        self.cache.compute(r.slot, r.key, r.tokens + tokens, len(r.tokens))
        r.tokens = r.tokens + tokens

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def keep(self, data: st.DataObject) -> None:
        self.extend(data.draw(st.sampled_from(self.running)))

    def extend(self, r: Running) -> None:
        r.held, changes = self.tree.extend(r.held, r.tokens[r.held.end :], r.slot)
        self.cache.carry_out(changes)
        if len(self.running) < len(SEQS):  # else every path may be in use
            assert r.held.end == len(r.tokens) == self.longest(r.key, r.tokens)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), keep=st.booleans(), warm_s=st.sampled_from([0.0, 1.0]))
    def end(self, data: st.DataObject, keep: bool, warm_s: float) -> None:
        r = data.draw(st.sampled_from(self.running))
        if keep:
            self.extend(r)
        self.running.remove(r)
        self.cache.cells[r.slot] = {}
        self.tree.unlock(r.held, warm_s)

    @rule(n_cells=st.integers(1, 12))
    def evict(self, n_cells: int) -> None:
        before, idle = self.tree.n_cells, self.tree.n_idle
        self.cache.carry_out(self.tree.evict(n_cells))
        assert before - self.tree.n_cells == min(n_cells, idle)

    @invariant()
    def the_tree_is_whole(self) -> None:
        self.tree.check_integrity()

    @invariant()
    def every_cell_is_kept_once(self) -> None:
        distinct = {cell for seq in SEQS for cell in self.cache.cells[seq].values()}
        assert len(distinct) == self.tree.n_cells
        for seq in SEQS:
            assert sorted(self.cache.cells[seq]) == list(range(len(self.cache.cells[seq])))

    @invariant()
    def what_is_locked_is_there(self) -> None:
        held = {(r.key, *r.tokens[: i + 1]) for r in self.running for i in range(r.held.end)}
        assert len(held) == self.tree.n_locked
        for r in self.running:
            assert self.longest(r.key, r.tokens) >= r.held.end

    def teardown(self) -> None:
        for r in self.running:
            self.tree.unlock(r.held)
        self.cache.carry_out(self.tree.evict(1000))
        assert (self.tree.n_cells, self.tree.n_locked, self.tree.roots) == (0, 0, {})
        self.tree.check_integrity()


TestTree = TreeMachine.TestCase
TestTree.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@given(TOKENS, TOKENS, st.integers(0, 8))
def test_same_counts_the_tokens_that_agree(stretch: list[int], tokens: list[int], start: int) -> None:
    n = 0
    while n < min(len(stretch), len(tokens) - start) and stretch[n] == tokens[start + n]:
        n += 1
    assert same(stretch, tokens, start) == n


def insert(tree: PrefixTree, tokens: list[int], slot: int = 0, key: str = "t") -> list[Copy | Remove]:
    """A request that computes all its tokens and ends."""
    held = tree.lock(key, tokens)
    held, changes = tree.extend(held, tokens[held.end :], slot)
    tree.unlock(held)
    return changes


def known(tree: PrefixTree, tokens: list[int], key: str = "t") -> tuple[int, int | None]:
    held = tree.lock(key, tokens)
    found = held.end, tree.source(held) if held.end else None
    tree.unlock(held)
    return found


def test_agents_share_a_prompt_and_have_their_own_ends() -> None:
    tree, prompt = PrefixTree(SEQS), list(range(100))
    assert insert(tree, [*prompt, 200]) == [Copy(0, 10, 0, 101)]
    assert known(tree, [*prompt, 201]) == (100, 10)
    assert insert(tree, [*prompt, 201, 7], 1) == [Copy(10, 11, 0, 100), Copy(1, 11, 100, 102)]
    assert tree.n_cells == 103


def test_the_next_turn_of_a_conversation_needs_no_sequence_of_its_own() -> None:
    tree = PrefixTree(SEQS)
    insert(tree, [1, 2, 3])
    assert insert(tree, [1, 2, 3, 4]) == [Copy(0, 10, 3, 4)]
    assert known(tree, [1, 2, 3, 4, 5]) == (4, 10)


def test_a_tenant_does_not_find_what_another_one_said() -> None:
    tree = PrefixTree(SEQS)
    insert(tree, [1, 2, 3], key="one")
    assert known(tree, [1, 2, 3], key="two") == (0, None)


def test_the_path_used_least_lately_goes_first_and_what_it_shares_stays() -> None:
    tree = PrefixTree(SEQS)
    insert(tree, [1, 2, 3, 4])
    insert(tree, [1, 2, 9])
    known(tree, [1, 2, 3, 4])
    assert tree.evict(1) == [Remove(11, 0)]
    assert known(tree, [1, 2, 9]) == (2, 10)
    assert tree.n_cells == 4


def test_what_is_warm_goes_after_all_else_as_long_as_it_is_warm() -> None:
    tree = PrefixTree(SEQS)
    for tokens, warm_s in (([1, 2, 3, 4], 5.0), ([1, 2, 9], 0.0), ([7, 8], 0.0)):
        insert(tree, tokens)
        tree.unlock(tree.lock("t", tokens), warm_s)
    assert [path[:2] for path in tree.idle_paths()] == [("t", [1, 2, 3, 4]), ("t", [7, 8]), ("t", [1, 2, 9])]
    tree.now_s = 4.0
    tree.evict(3)
    assert known(tree, [1, 2, 3, 4])[0] == 4
    insert(tree, [7, 8])
    tree.now_s = 6.0
    tree.evict(2)
    assert known(tree, [1, 2, 3, 4])[0] == 4 - 2
    assert known(tree, [7, 8])[0] == 2


def test_a_long_path_is_given_up_from_its_end_and_no_further_than_asked_for() -> None:
    tree = PrefixTree(SEQS)
    insert(tree, list(range(100)))
    assert tree.evict(30) == [Remove(10, 70)]
    assert known(tree, list(range(100))) == (70, 10)


def test_when_all_is_in_use_nothing_is_kept_and_nothing_is_lost() -> None:
    tree = PrefixTree([10])
    insert(tree, [1, 2, 3])
    held = tree.lock("t", [1, 2, 3])
    assert insert(tree, [5, 6]) == []
    assert tree.evict(99) == []
    tree.unlock(held)
    assert insert(tree, [5, 6]) == [Remove(10, 0), Copy(0, 10, 0, 2)]


def test_without_sequences_nothing_is_kept() -> None:
    tree = PrefixTree(())
    assert insert(tree, [1, 2, 3]) == []
    assert known(tree, [1, 2, 3]) == (0, None)
    assert tree.roots == {}


def test_unlocking_twice_is_a_bug() -> None:
    tree = PrefixTree(SEQS)
    insert(tree, [1, 2])
    held = tree.lock("t", [1])
    tree.unlock(held)
    with pytest.raises(AssertionError):
        tree.unlock(held)
