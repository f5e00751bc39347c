"""The tokens whose KV cells are kept, as a radix tree: what has been computed once is found by whoever begins with it.

A path from a root is a row of tokens with their cells. Every leaf owns a sequence of the KV cache that holds the cells
of its whole path; nodes above it share them, so a cell is kept once however many leaves use it. Nothing here knows
llama.cpp: what is to be copied or removed there is handed out as values, in the order in which it is to be done.
Roots are told apart by a key (a tenant, a set of adapters): no path crosses from one to another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence


@dataclass(slots=True, eq=False)
class Node:
    """A stretch of tokens. `start` is the position of the first one."""

    parent: Node | None
    start: int
    tokens: list[int]
    children: dict[int, Node] = field(default_factory=dict)  # by their first token
    seq: int | None = None  # of a leaf: the sequence that holds the cells of its path
    n_locks: int = 0  # of itself and of all below: requests that run on these cells
    used: int = 0  # the tree's clock when somebody last came by

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


@dataclass(frozen=True, slots=True)
class Match:
    """The longest known beginning of some tokens: its cells are those of `seq` up to `n_tokens`."""

    n_tokens: int
    seq: int | None


@dataclass(frozen=True, slots=True)
class Copy:
    """Let `to` hold the cells of `source` in [start, end)."""

    source: int
    to: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Remove:
    """Let `seq` hold no cell from `start` on."""

    seq: int
    start: int


Change = Copy | Remove


class PrefixTree:
    """`seqs`: ids of sequences that may hold what is kept; as many paths at most."""

    def __init__(self, seqs: Iterable[int]) -> None:
        self.roots: dict[Hashable, Node] = {}
        self.n_cells = 0  # of all nodes
        self._free = sorted(seqs, reverse=True)
        self._n_seqs = len(self._free)
        self._clock = 0

    # questions

    def match(self, key: Hashable, tokens: Sequence[int]) -> Match:
        """Changes nothing but what counts as used lately."""
        self._clock += 1
        node, n_tokens = self.roots.get(key, _NOTHING), 0
        while n_tokens == node.end < len(tokens) and tokens[n_tokens] in node.children:
            node = node.children[tokens[n_tokens]]
            node.used = self._clock
            n_tokens += _n_same(node.tokens, tokens, n_tokens)
        return Match(n_tokens, _a_leaf(node).seq if n_tokens else None)

    # requests that run on kept cells

    def lock(self, key: Hashable, tokens: Sequence[int]) -> Node:
        """Keep the cells of these tokens, which `match` has found, until `unlock`; returns what is to be unlocked."""
        node = self.roots.setdefault(key, Node(None, 0, []))
        while node.end < len(tokens):
            child = node.children[tokens[node.end]]
            node = self._split(child, len(tokens)) if child.end > len(tokens) else child
        for above in _way_up(node):
            above.n_locks += 1
        return node

    def unlock(self, node: Node) -> None:
        """Once for each `lock`."""
        assert node.n_locks > 0, "unlocked more often than locked"
        for above in _way_up(node):
            above.n_locks -= 1
        self._tidy(node)

    # what is kept

    def insert(self, key: Hashable, tokens: Sequence[int], source: int) -> list[Change]:
        """Keep the cells of these tokens, which are those of the sequence `source`.

        What was known of them is shared, so the cells of `source` may go afterwards. Without a free sequence the path
        that was used least lately makes room; when all are in use, nothing is kept.
        """
        n_known = self.match(key, tokens).n_tokens
        if n_known == len(tokens):
            return []
        changes: list[Change] = []
        held = self.lock(key, tokens[:n_known])  # what is shared must not make room
        if held.seq is None and not self._free:
            changes += self.evict(1, any_cells=False)
        if held.seq is not None or self._free:
            changes += self._add(held, list(tokens[n_known:]), source)
        self.unlock(held)
        return changes

    def evict(self, n_cells: int, *, any_cells: bool = True) -> list[Change]:
        """Give up the least used paths until so many cells are free, or nothing is left that may go.

        With `any_cells` false until a sequence is free, however many cells that gives.
        """
        changes: list[Change] = []
        least = self.n_cells - n_cells
        while (self.n_cells > least) if any_cells else not self._free:
            leaves = [leaf for leaf in self._leaves() if not leaf.n_locks]
            if not leaves:
                break
            changes.append(self._drop(min(leaves, key=lambda leaf: leaf.used)))
        self.roots = {key: root for key, root in self.roots.items() if root.children or root.n_locks}
        return changes

    def clear(self) -> list[Change]:
        """Give up whatever no request runs on."""
        return self.evict(self.n_cells)

    def check_integrity(self) -> None:
        """What must hold between any two calls. Raises AssertionError."""
        n_cells, seqs = 0, []
        for root in self.roots.values():
            assert root.parent is None
            assert not root.tokens
            for node in _below(root):
                n_cells += len(node.tokens)
                assert node.parent is None or (node.tokens and node.start == node.parent.end)
                assert node.parent is None or node.parent.n_locks >= node.n_locks
                for first, child in node.children.items():
                    assert child.parent is node
                    assert child.tokens[0] == first
                is_leaf = node.parent is not None and not node.children
                assert (node.seq is not None) == is_leaf, "leaves have a sequence, and nobody else"
                seqs += [node.seq] if node.seq is not None else []
        assert n_cells == self.n_cells
        assert len(set(seqs) | set(self._free)) == len(seqs) + len(self._free) == self._n_seqs

    # how it is done

    def _add(self, held: Node, tokens: list[int], source: int) -> list[Change]:
        """The tokens after a node that the caller has locked."""
        changes: list[Change] = []
        seq, end = held.seq, held.end + len(tokens)
        if seq is None:
            seq = self._free.pop()
            if held.parent is not None:
                known = _a_leaf(held).seq
                assert known is not None
                changes.append(Copy(known, seq, 0, held.end))
        changes.append(Copy(source, seq, held.end, end))
        self.n_cells += len(tokens)
        if held.seq is not None and held.n_locks == 1:  # the path just grows: the next turn of a conversation
            held.tokens += tokens
        else:
            held.seq = None
            held.children[tokens[0]] = Node(held, held.end, tokens, seq=seq, used=self._clock)
        return changes

    def _split(self, node: Node, at: int) -> Node:
        """Cut a node at a position; returns the part before it."""
        parent, n = node.parent, at - node.start
        assert parent is not None
        above = Node(parent, node.start, node.tokens[:n], n_locks=node.n_locks, used=node.used)
        above.children[node.tokens[n]] = node
        parent.children[above.tokens[0]] = above
        node.parent, node.start, node.tokens = above, at, node.tokens[n:]
        return above

    def _drop(self, leaf: Node) -> Change:
        """Take a leaf out; what it shares stays with the others, or with the part of the path above it."""
        parent, seq = leaf.parent, leaf.seq
        assert parent is not None
        assert seq is not None
        del parent.children[leaf.tokens[0]]
        self.n_cells -= len(leaf.tokens)
        if parent.children or parent.parent is None:
            self._free.append(seq)
            self._tidy(parent)
            return Remove(seq, 0)
        parent.seq = seq
        return Remove(seq, leaf.start)

    def _tidy(self, node: Node) -> None:
        """A cut that nobody needs any more is undone."""
        if node.parent is not None and not node.n_locks and len(node.children) == 1:
            (child,) = node.children.values()
            child.start, child.tokens, child.parent = node.start, node.tokens + child.tokens, node.parent
            node.parent.children[child.tokens[0]] = child

    def _leaves(self) -> Iterator[Node]:
        return (node for root in self.roots.values() for node in _below(root) if node.seq is not None)


_NOTHING = Node(None, 0, [])


def _n_same(stretch: Sequence[int], tokens: Sequence[int], start: int) -> int:
    """How many tokens of the stretch are those from `start` on."""
    n = min(len(stretch), len(tokens) - start)
    if list(stretch[:n]) == list(tokens[start : start + n]):  # the usual case, at the speed of C
        return n
    return next(i for i in range(n) if stretch[i] != tokens[start + i])


def _a_leaf(node: Node) -> Node:
    while node.children:
        node = next(iter(node.children.values()))
    return node


def _way_up(node: Node) -> Iterator[Node]:
    at: Node | None = node
    while at is not None:
        yield at
        at = at.parent


def _below(node: Node) -> Iterator[Node]:
    """The node and all under it."""
    stack = [node]
    while stack:
        node = stack.pop()
        yield node
        stack += node.children.values()
