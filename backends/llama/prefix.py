"""The tokens whose KV cells are kept, as a radix tree: what has been computed once is found by whoever begins with it.

A path from a root is a row of tokens with their cells. Every leaf owns a sequence of the KV cache that holds the cells
of its whole path; nodes above it share them, so a cell is kept once however many leaves use it. Nothing here knows
llama.cpp: what is to be copied or removed there is handed out as values, in the order in which it is to be done.
Roots are told apart by a key (a tenant, a set of adapters): no path crosses from one to another.

A request that runs holds a lock on the node where its known tokens end; that node and all above it stay. What nobody
holds stays until its cells are wanted, and the ends of those paths go first that were used least lately, unless they
are to stay warm for a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


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
    warm_s: float = 0.0  # until then others go first

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


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
if TYPE_CHECKING:
    Path = tuple[str, list[int], int, float]  # (key, its tokens, the sequence with its cells, until when it is warm)
    Spill = Callable[[str, list[int], int, float], object]


class PrefixTree:
    """`seqs`: ids of sequences that may hold what is kept; as many paths at most. Without any, nothing is kept."""

    def __init__(self, seqs: Iterable[int]) -> None:
        self.roots: dict[str, Node] = {}
        self.n_cells = 0  # of all nodes
        self.n_locked = 0  # of those, cells that a request runs on
        self.now_s = 0.0  # the caller's clock
        self._free = sorted(seqs, reverse=True)
        self._n_seqs = len(self._free)
        self._clock = 0

    # requests that run on kept cells

    def lock(self, key: str, tokens: Sequence[int]) -> Node:
        """Keep the longest known beginning of `tokens` until `unlock`; its cells are those of `source(node)`."""
        self._clock += 1
        node, _ = self._follow(self.roots.setdefault(key, Node(None, 0, [])), tokens)
        self._count(node, 1)
        return node

    def extend(self, held: Node, tokens: Sequence[int], source: int) -> tuple[Node, list[Change]]:
        """A holder has computed `tokens` behind `held`, into the sequence `source`: keep and hold these, too.

        What was known of them already is shared, so the cells of `source` may go afterwards. Without a free sequence
        the path that was used least lately makes room; when all are in use nothing more is kept.
        """
        self._clock += 1
        node, n_known = self._follow(held, tokens)
        self._count(node, 1)
        self._count(held, -1)
        self._tidy(held)
        if n_known == len(tokens):
            return node, []
        changes = self._free_seq(node) if node.seq is None else []
        if node.seq is None and not self._free:
            return node, changes
        return self._add(node, list(tokens[n_known:]), source, changes)

    def unlock(self, node: Node, warm_s: float = 0.0) -> None:
        """Once for each `lock`. Until `warm_s` other paths go before this one."""
        assert node.n_locks > 0, "unlocked more often than locked"
        self._clock += 1
        self._count(node, -1)
        for above in list(_way_up(node)):
            above.used = self._clock
            above.warm_s = max(above.warm_s, warm_s)
            self._tidy(above)
        self._forget_roots()

    def n_known(self, key: str, tokens: Sequence[int]) -> int:
        """How many of these are kept; changes nothing."""
        node, n = self.roots.get(key), 0
        while node is not None and n < len(tokens) and (child := node.children.get(tokens[n])) is not None:
            n_same = same(child.tokens, tokens, n)
            node = child if n_same == len(child.tokens) else None
            n += n_same
        return n

    def source(self, node: Node) -> int | None:
        """A sequence with the cells of a path; None for a root of nothing."""
        while node.children:
            node = next(iter(node.children.values()))
        return node.seq

    # what is kept

    @property
    def n_idle(self) -> int:
        """Cells that no request runs on."""
        return self.n_cells - self.n_locked

    def evict(self, n_cells: int, spill: Spill | None = None) -> list[Change]:
        """Give up so many idle cells, or all there are: from the ends of paths, the least used first.

        `spill` is told of each path before its end goes: the changes that are returned have not been made yet.
        """
        changes: list[Change] = []
        least = max(self.n_locked, self.n_cells - n_cells)
        leaves = self._idle_leaves()
        while self.n_cells > least:
            leaf = heappop(leaves)[-1]
            if spill is not None:
                spill(*self._path(leaf))
            n_surplus = self.n_cells - least
            if n_surplus < len(leaf.tokens):
                changes.append(self._cut(leaf, leaf.end - n_surplus))
            else:
                change, above = self._drop(leaf)
                changes.append(change)
                if above is not None and not above.n_locks:
                    heappush(leaves, self._rank(above))
        self._forget_roots()
        return changes

    def idle_paths(self) -> Iterator[Path]:
        """Those that end in idle cells, what would go last first."""
        for rank in sorted(self._idle_leaves(), reverse=True):
            yield self._path(rank[-1])

    def check_integrity(self) -> None:
        """What must hold between any two calls. Raises AssertionError."""
        n_cells, n_locked, seqs = 0, 0, []
        for root in self.roots.values():
            assert root.parent is None
            assert not root.tokens
            for node in _below(root):
                n_cells += len(node.tokens)
                n_locked += len(node.tokens) if node.n_locks else 0
                assert node.parent is None or (node.tokens and node.start == node.parent.end)
                assert node.n_locks >= sum(child.n_locks for child in node.children.values())
                for first, child in node.children.items():
                    assert child.parent is node
                    assert child.tokens[0] == first
                is_leaf = node.parent is not None and not node.children
                assert (node.seq is not None) == is_leaf, "leaves have a sequence, and nobody else"
                seqs += [node.seq] if node.seq is not None else []
        assert (n_cells, n_locked) == (self.n_cells, self.n_locked)
        assert len(set(seqs) | set(self._free)) == len(seqs) + len(self._free) == self._n_seqs

    # how it is done

    def _follow(self, node: Node, tokens: Sequence[int]) -> tuple[Node, int]:
        """The node where what is known of `tokens` below `node` ends, cut to end just there, and how many those are."""
        n = 0
        while n < len(tokens) and (child := node.children.get(tokens[n])) is not None:
            n_same = same(child.tokens, tokens, n)
            node = child if n_same == len(child.tokens) else self._split(child, child.start + n_same)
            node.used = self._clock
            n += n_same
        return node, n

    def _count(self, node: Node, by: int) -> None:
        """One more lock on a path, or one less."""
        for at in _way_up(node):
            was, at.n_locks = at.n_locks, at.n_locks + by
            if not was or not at.n_locks:
                self.n_locked += by * len(at.tokens)

    def _add(self, node: Node, tokens: list[int], source: int, changes: list[Change]) -> tuple[Node, list[Change]]:
        """New tokens behind a node whose one lock more is the caller's; the lock moves to their end."""
        end = node.end + len(tokens)
        seq = self._free.pop() if node.seq is None else node.seq
        if node.seq is None and node.parent is not None:
            known = self.source(node)
            assert known is not None
            changes.append(Copy(known, seq, 0, node.end))
        changes.append(Copy(source, seq, node.end, end))
        self.n_cells += len(tokens)
        self.n_locked += len(tokens)
        if node.seq is not None and node.n_locks == 1:  # the path just grows: the next turn of a conversation
            node.tokens += tokens
            return node, changes
        node.seq = None
        child = Node(node, node.end, tokens, seq=seq, n_locks=1, used=self._clock)
        node.children[tokens[0]] = child
        return child, changes

    def _split(self, node: Node, at: int) -> Node:
        """Cut a node at a position; returns the part before it."""
        parent, n = node.parent, at - node.start
        assert parent is not None
        above = Node(parent, node.start, node.tokens[:n], n_locks=node.n_locks, used=node.used, warm_s=node.warm_s)
        above.children[node.tokens[n]] = node
        parent.children[above.tokens[0]] = above
        node.parent, node.start, node.tokens = above, at, node.tokens[n:]
        return above

    def _tidy(self, node: Node) -> None:
        """A cut at which nobody holds and nothing parts is undone."""
        if node.parent is None or len(node.children) != 1:
            return
        (child,) = node.children.values()
        if child.n_locks == node.n_locks:
            child.start, child.tokens, child.parent = node.start, node.tokens + child.tokens, node.parent
            child.warm_s = max(child.warm_s, node.warm_s)
            node.parent.children[child.tokens[0]] = child

    def _path(self, leaf: Node) -> Path:
        stretches = [node.tokens for node in _way_up(leaf)]
        root = next(node for node in _way_up(leaf) if node.parent is None)
        key = next(key for key, node in self.roots.items() if node is root)
        assert leaf.seq is not None
        return key, [token for stretch in reversed(stretches) for token in stretch], leaf.seq, leaf.warm_s

    def _free_seq(self, node: Node) -> list[Change]:
        """Have a sequence to give, if any path is idle; or that of the node's last child, which then is its own."""
        changes: list[Change] = []
        leaves = [] if self._free else self._idle_leaves()
        while leaves and not self._free and node.seq is None:
            change, above = self._drop(heappop(leaves)[-1])
            changes.append(change)
            if above is not None and not above.n_locks:
                heappush(leaves, self._rank(above))
        return changes

    def _drop(self, leaf: Node) -> tuple[Change, Node | None]:
        """Take a leaf out. What it shares stays with the others, or with the node above, which then is a leaf."""
        parent, seq = leaf.parent, leaf.seq
        assert parent is not None
        assert seq is not None
        del parent.children[leaf.tokens[0]]
        self.n_cells -= len(leaf.tokens)
        if parent.children or parent.parent is None:
            self._free.append(seq)
            self._tidy(parent)
            return Remove(seq, 0), None
        parent.seq = seq
        return Remove(seq, leaf.start), parent

    def _cut(self, leaf: Node, at: int) -> Change:
        """Give up the end of a leaf."""
        assert leaf.seq is not None
        self.n_cells -= leaf.end - at
        del leaf.tokens[at - leaf.start :]
        return Remove(leaf.seq, at)

    def _forget_roots(self) -> None:
        self.roots = {key: root for key, root in self.roots.items() if root.children or root.n_locks}

    def _rank(self, node: Node) -> tuple[bool, int, int, Node]:
        """What goes first comes first."""
        return node.warm_s > self.now_s, node.used, id(node), node

    def _idle_leaves(self) -> list[tuple[bool, int, int, Node]]:
        """A heap, the least used first."""
        nodes = (node for root in self.roots.values() for node in _below(root))
        leaves = [self._rank(node) for node in nodes if node.seq is not None and not node.n_locks]
        heapify(leaves)
        return leaves


def same(stretch: Sequence[int], tokens: Sequence[int], start: int = 0) -> int:
    """How many tokens of the stretch are those from `start` on; compares slices, which is done at the speed of C."""
    low, high = 0, max(0, min(len(stretch), len(tokens) - start))
    if stretch[:high] == tokens[start : start + high]:
        return high
    while high - low > 1:  # alike below `low`, not so below `high`
        middle = (low + high) // 2
        if stretch[low:middle] == tokens[start + low : start + middle]:
            low = middle
        else:
            high = middle
    return low


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
