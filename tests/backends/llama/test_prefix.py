"""The tree against a model that knows every path by heart, and a cache that only does what it is told."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inferd.backends.llama.prefix import Copy, Match, PrefixTree, Remove

SLOT = 0  # the sequence that a request runs in
SEQS = (10, 11, 12, 13)
TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=8)
KEYS = st.sampled_from(["a", "b"])


class Cache:
    """Sequences and the cells that they hold: each knows all the tokens that it was computed from."""

    def __init__(self) -> None:
        self.cells: dict[int, dict[int, tuple[object, ...]]] = defaultdict(dict)

    def compute(self, seq: int, key: object, tokens: list[int]) -> None:
        self.cells[seq] = {i: (key, *tokens[: i + 1]) for i in range(len(tokens))}

    def carry_out(self, changes: list[Copy | Remove]) -> None:
        for change in changes:
            match change:
                case Copy(source, to, start, end):
                    assert set(range(start, end)) <= set(self.cells[source])
                    self.cells[to] |= {i: self.cells[source][i] for i in range(start, end)}
                case Remove(seq, start):
                    self.cells[seq] = {i: cell for i, cell in self.cells[seq].items() if i < start}


class TreeMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tree, self.cache = PrefixTree(SEQS), Cache()
        self.locked: list[tuple[object, list[int], object]] = []

    def kept(self, key: object) -> list[tuple[int, ...]]:
        """Whole paths, by the cells that sequences hold."""
        held = (self.cache.cells[seq] for seq in SEQS)
        return [cells[max(cells)][1:] for cells in held if cells and cells[0][0] == key]  # type: ignore[misc]

    def longest(self, key: object, tokens: list[int]) -> int:
        return max((same(path, tokens) for path in self.kept(key)), default=0)

    @rule(key=KEYS, tokens=TOKENS)
    def insert(self, key: str, tokens: list[int]) -> None:
        self.cache.compute(SLOT, key, tokens)
        self.cache.carry_out(self.tree.insert(key, tokens, SLOT))
        self.cache.cells.pop(SLOT)
        if len(self.locked) < len(SEQS):  # else every path may be in use
            assert self.longest(key, tokens) == len(tokens)

    @rule(key=KEYS, tokens=TOKENS)
    def match(self, key: str, tokens: list[int]) -> None:
        found = self.tree.match(key, tokens)
        assert found.n_tokens == self.longest(key, tokens)
        if found.n_tokens:
            assert found.seq is not None
            for i in range(found.n_tokens):
                assert self.cache.cells[found.seq][i] == (key, *tokens[: i + 1])

    @precondition(lambda self: len(self.locked) < len(SEQS))
    @rule(key=KEYS, tokens=TOKENS)
    def lock(self, key: str, tokens: list[int]) -> None:
        known = tokens[: self.tree.match(key, tokens).n_tokens]
        self.locked.append((key, known, self.tree.lock(key, known)))

    @precondition(lambda self: self.locked)
    @rule(data=st.data())
    def unlock(self, data: st.DataObject) -> None:
        i = data.draw(st.integers(0, len(self.locked) - 1))
        self.tree.unlock(self.locked.pop(i)[2])  # type: ignore[arg-type]

    @rule(n_cells=st.integers(1, 12))
    def evict(self, n_cells: int) -> None:
        before = self.tree.n_cells
        self.cache.carry_out(self.tree.evict(n_cells))
        in_use = {(key, *known[: i + 1]) for key, known, _ in self.locked for i in range(len(known))}
        assert before - self.tree.n_cells >= min(n_cells, before - len(in_use))

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
        for key, known, _ in self.locked:
            assert self.longest(key, known) == len(known)

    def teardown(self) -> None:
        for _, _, node in self.locked:
            self.tree.unlock(node)  # type: ignore[arg-type]
        self.cache.carry_out(self.tree.clear())
        assert self.tree.n_cells == 0
        assert not self.tree.roots
        self.tree.check_integrity()


TestTree = TreeMachine.TestCase
TestTree.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def same(path: tuple[int, ...], tokens: list[int]) -> int:
    n = 0
    while n < min(len(path), len(tokens)) and path[n] == tokens[n]:
        n += 1
    return n


def test_agents_share_a_prompt_and_have_their_own_ends() -> None:
    tree, prompt = PrefixTree(SEQS), list(range(100))
    assert tree.insert("t", [*prompt, 200], 0) == [Copy(0, 10, 0, 101)]
    assert tree.match("t", [*prompt, 201]) == Match(100, 10)
    assert tree.insert("t", [*prompt, 201, 7], 1) == [Copy(10, 11, 0, 100), Copy(1, 11, 100, 102)]
    assert tree.n_cells == 103


def test_the_next_turn_of_a_conversation_needs_no_sequence_of_its_own() -> None:
    tree = PrefixTree(SEQS)
    tree.insert("t", [1, 2, 3], 0)
    assert tree.insert("t", [1, 2, 3, 4], 0) == [Copy(0, 10, 3, 4)]
    assert tree.match("t", [1, 2, 3, 4, 5]) == Match(4, 10)


def test_a_tenant_does_not_find_what_another_one_said() -> None:
    tree = PrefixTree(SEQS)
    tree.insert("one", [1, 2, 3], 0)
    assert tree.match("two", [1, 2, 3]) == Match(0, None)


def test_the_path_used_least_lately_goes_first_and_what_it_shares_stays() -> None:
    tree = PrefixTree(SEQS)
    tree.insert("t", [1, 2, 3, 4], 0)
    tree.insert("t", [1, 2, 9], 0)
    tree.match("t", [1, 2, 3, 4])
    assert tree.evict(1) == [Remove(11, 0)]
    assert tree.match("t", [1, 2, 9]).n_tokens == 2
    assert tree.n_cells == 4


def test_when_all_is_in_use_nothing_is_kept_and_nothing_is_lost() -> None:
    tree = PrefixTree([10])
    tree.insert("t", [1, 2, 3], 0)
    held = tree.lock("t", [1, 2, 3])
    assert tree.insert("t", [5, 6], 0) == []
    assert tree.evict(99) == []
    tree.unlock(held)
    assert tree.insert("t", [5, 6], 0) == [Remove(10, 0), Copy(0, 10, 0, 2)]


def test_unlocking_twice_is_a_bug() -> None:
    tree = PrefixTree(SEQS)
    tree.insert("t", [1, 2], 0)
    held = tree.lock("t", [1])
    tree.unlock(held)
    with pytest.raises(AssertionError):
        tree.unlock(held)
