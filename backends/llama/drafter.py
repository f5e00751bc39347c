"""A smaller model that guesses the next tokens of the large one, llama.cpp's `draft-simple`.

It has a context of its own with the same slots, and is asked for its likeliest next token as often as that pays. What
its cells hold follows the requests lazily: what was guessed wrong is dropped and what came since is computed when the
next guess is wanted, a long prompt piece by piece. How often its guesses come true is learnt of every request, and a
request for which nothing was guessed lately is hoped for a little more with each token, so that it is tried again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .odds import Chance, Odds, how_many
from .pace import Pace
from .prefix import same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Sequence as Many

    from .binding import Context, Model
    from .sequence import Sequence
    from .vocab import Vocab

    Wish = tuple[Sequence, int]  # who wants guesses, and the most it may have
    Rows = tuple[Sequence, list[int]]  # the next tokens of a request

BENEFIT = 0.3  # a new request may be easier to guess than those before: so much is added to their chance
SLOWER = 0.1  # hope for all requests grows more slowly than for each
TRIED = 8  # calls, after which what they take is known
FEW = 8  # tokens that came since the last guess and are computed in passing; more are a prompt
AHEAD = 256  # tokens over which catching up with a long prompt may pay off; an answer may be longer, but who knows


@dataclass(slots=True)
class Slot:
    """What the small model knows of the request that has the sequence of the same number."""

    seq: int
    request: Sequence | None = None
    tokens: list[int] = field(default_factory=list)  # whose cells it has, also of the request before
    n_same: int = 0  # of those, the first ones that are the request's own
    n_seen: int = 0  # tokens of the request when it was last looked at
    guess: list[int] = field(default_factory=list)  # what was then said to follow
    odds: Odds = field(default_factory=Odds)


class Drafter:
    """The small model and its context. `vocab`: of the large one; what only one of them has stands at the end."""

    def __init__(self, model: Model, context: Context, vocab: Vocab) -> None:
        self._model = model
        self._context = context
        self._n_own = model.vocab.n_tokens
        self._n_words = min(self._n_own, vocab.n_tokens)
        self._ends = vocab.eog
        self._slots = [Slot(seq) for seq in range(context.n_seqs)]
        self._odds = Odds()  # of all requests
        self.pace = Pace()
        self._n_calls = 0

    def use_threads(self, n_threads: int) -> None:
        self._context.use_threads(n_threads)

    def close(self) -> None:
        self._context.close()
        self._model.close()

    # what pays

    def look(self, s: Sequence) -> None:
        """Learn from what came of a request since; to be called before each step that may have guesses."""
        slot = self._slots[s.seq]
        if slot.request is not s:
            self._meet(slot, s)
        elif slot.guess:
            came = s.tokens[slot.n_seen :]
            slot.odds.learn(slot.guess, came)
            self._odds.learn(slot.guess, came)
            slot.guess = []
        else:
            n_tokens = len(s.tokens) - slot.n_seen
            slot.odds.hope(n_tokens)
            self._odds.hope(SLOWER * n_tokens)
        slot.n_seen = len(s.tokens)

    def rate(self, s: Sequence, n_most: int, n_rows: int, call_ms: Callable[[int], float]) -> float:
        """Tokens/ms of a step that has guesses for this request alone."""
        return how_many([self._chance(s, n_most)], n_rows, n_most, call_ms, self._guess_ms).rate

    def draft(
        self,
        wishes: Many[Wish],
        running: Many[Sequence],
        n_rows: int,
        n_left: int,
        call_ms: Callable[[int], float],
        budget_ms: float,
    ) -> dict[Sequence, list[int]]:
        """Guesses for those for whom they pay, `n_left` in all. See `how_many` for the words.

        `budget_ms`: what a prompt that is computed here may take of a step.
        """
        able = [(self._chance(s, n_most), s, n_most) for s, n_most in wishes if n_most > 0]
        able.sort(key=lambda it: -it[0].comes_true)
        choice = how_many([chance for chance, _, _ in able], n_rows, n_left, call_ms, self._guess_ms)
        if not choice.n_guesses:
            self.pace.passed()
            return {}
        chosen = [(s, n_most) for _, s, n_most in able[: choice.n_answers]]
        return self._guess(chosen, choice.n_guesses, running, budget_ms)

    def _guess_ms(self, n_rows: int) -> float:
        """One token for so many requests. Nothing at first: one call alone, and a cold one, says little."""
        return self.pace.flow_rows_ms(n_rows) if self._n_calls >= TRIED else 0.0

    def _chance(self, s: Sequence, n_most: int) -> Chance:
        slot = self._slots[s.seq]
        n_behind = len(s.tokens) - self._known(slot, s)
        if n_behind <= FEW:
            return Chance(slot.odds.comes_true, n_most)
        n_ahead = max(1, min(AHEAD, s.submit.params.max_tokens - s.n_completion))
        return Chance(slot.odds.comes_true, n_most, (self.pace.predict_ms(n_behind) or 0.0) / n_ahead)

    # what its cells hold

    def _meet(self, slot: Slot, s: Sequence) -> None:
        """A new request: whichever sequence holds most of its tokens lends it their cells."""
        known = s.tokens[:-1]
        source = max(self._slots, key=lambda other: (same(other.tokens, known), other is slot))
        n = same(source.tokens, known)
        if source is not slot:
            self._cut(slot, 0)
            if n:
                self._context.seq_cp(source.seq, slot.seq, 0, n)
                slot.tokens = source.tokens[:n]
        slot.request, slot.n_same, slot.guess = s, n, []
        slot.odds = Odds.hoped(self._odds.comes_true + BENEFIT)

    def _known(self, slot: Slot, s: Sequence) -> int:
        """How many tokens of a request have cells; never the last one, as what follows it is wanted."""
        most = min(len(slot.tokens), len(s.tokens) - 1)
        n = min(slot.n_same, most)
        while n < most and slot.tokens[n] == s.tokens[n]:
            n += 1
        slot.n_same = n
        return n

    def _cut(self, slot: Slot, n: int) -> None:
        if n < len(slot.tokens):
            self._context.seq_rm(slot.seq, n)
            del slot.tokens[n:]

    # guessing

    def _guess(
        self, wishes: Many[Wish], n_guesses: int, running: Many[Sequence], budget_ms: float
    ) -> dict[Sequence, list[int]]:
        """Of those that are caught up with now; the others need another step."""
        n_most = {s: min(n, n_guesses) for s, n in wishes}
        rows, prompts = self._behind(n_most, budget_ms)
        said = None
        while rows and said is None:
            said = self._ask(rows, running, prompts=prompts)
            if said is None:
                self._give_up(rows.pop()[0])
        guesses: dict[Sequence, list[int]] = {s: [] for s in said or ()}
        while said:
            going = []
            for s, token in said.items():
                if token not in self._ends:
                    guesses[s].append(token)
                    if len(guesses[s]) < n_most[s]:
                        going.append((s, [token]))
            said = self._ask(going, running) if going else None
        for s, guess in guesses.items():
            self._slots[s.seq].guess = guess.copy()  # the other one may be shed
        return guesses

    def _behind(self, wishes: Iterable[Sequence], budget_ms: float) -> tuple[list[Rows], bool]:
        """What came since, those of whom little is missing first, and whether a prompt is among it."""
        behind = sorted(wishes, key=lambda s: len(s.tokens) - self._known(self._slots[s.seq], s))
        n_left = self._context.batch.n_rows_max
        last = behind[-1]
        if prompts := len(last.tokens) - self._slots[last.seq].n_same > FEW:
            n_left = self.pace.chunk(n_left, budget_ms)
        rows: list[Rows] = []
        for s in behind:
            slot = self._slots[s.seq]
            self._cut(slot, slot.n_same)
            if piece := s.tokens[slot.n_same : slot.n_same + n_left]:
                rows.append((s, piece))
                n_left -= len(piece)
        return rows, prompts

    def _ask(self, rows: Many[Rows], running: Many[Sequence], *, prompts: bool = False) -> dict[Sequence, int] | None:
        """Compute these tokens; what is likeliest to follow those requests of which none is missing. None: no room."""
        start_s = time.perf_counter()
        batch = self._context.batch
        batch.clear()
        whole = []
        for s, tokens in rows:
            n_known = len(self._slots[s.seq].tokens)
            if n_known + len(tokens) >= len(s.tokens):
                whole.append(s)
            known = [token if token < self._n_own else 0 for token in tokens]
            batch.add(s.seq, n_known, known, n_wanted=int(n_known + len(tokens) >= len(s.tokens)))
        if not (self._context.decode() or (self._make_room(running) and self._context.decode())):
            return None
        n_rows = 0
        for s, tokens in rows:
            self._slots[s.seq].tokens += tokens
            n_rows += len(tokens)
        likeliest = self._context.logits()[:, : self._n_words].argmax(axis=1).tolist() if whole else []
        self._n_calls += 1
        self.pace.note(n_rows, n_rows if prompts else 0, (time.perf_counter() - start_s) * 1e3)
        return dict(zip(whole, likeliest, strict=True))

    def _make_room(self, running: Many[Sequence]) -> bool:
        """Give up what is known of requests that ended; False when there is no such thing."""
        busy = {s.seq for s in running}
        idle = [slot for slot in self._slots if slot.tokens and slot.seq not in busy]
        for slot in idle:
            self._cut(slot, 0)
        return bool(idle)

    def _give_up(self, s: Sequence) -> None:
        """There are not enough cells for all: nothing is guessed for this one until hope has risen again."""
        slot = self._slots[s.seq]
        self._cut(slot, 0)
        slot.n_same, slot.odds.comes_true = 0, 0.0
