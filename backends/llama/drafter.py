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
class Drafted:
    """What the small model knows of one request."""

    odds: Odds
    n_seen: int  # tokens when it was last looked at
    n_same: int  # of those in the cells of its sequence, the first ones that are its own
    guess: list[int] = field(default_factory=list)  # what was then said to follow


class Drafter:
    """The small model and its context. `vocab`: of the large one; what only one of them has stands at the end."""

    def __init__(self, model: Model, context: Context, vocab: Vocab) -> None:
        self._model = model
        self._context = context
        self._n_own = model.vocab.n_tokens
        self._n_words = min(self._n_own, vocab.n_tokens)
        self._ends = vocab.eog
        self._tokens: list[list[int]] = [[] for _ in range(context.n_seqs)]  # by sequence, whose cells it has
        self._salts = [""] * context.n_seqs  # of the requests that they are of
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
        its = s.drafted
        if its is None:
            s.drafted = self._meet(s)
            return
        if its.guess:
            came = s.tokens[its.n_seen :]
            its.odds.learn(its.guess, came)
            self._odds.learn(its.guess, came)
            its.guess = []
        else:
            n_tokens = len(s.tokens) - its.n_seen
            its.odds.hope(n_tokens)
            self._odds.hope(SLOWER * n_tokens)
        its.n_seen = len(s.tokens)

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
        comes_true = _its(s).odds.comes_true
        n_behind = len(s.tokens) - self._known(s)
        if n_behind <= FEW:
            return Chance(comes_true, n_most)
        n_ahead = max(1, min(AHEAD, s.submit.params.max_tokens - s.n_completion))
        return Chance(comes_true, n_most, (self.pace.predict_ms(n_behind) or 0.0) / n_ahead)

    # what its cells hold

    def _meet(self, s: Sequence) -> Drafted:
        """A new request: of those with its salt, whichever sequence holds most of its tokens lends it their cells."""
        known, salt = s.tokens[:-1], s.submit.cache_salt
        held = [same(tokens, known) if self._salts[seq] == salt else 0 for seq, tokens in enumerate(self._tokens)]
        source = max(range(len(held)), key=lambda seq: (held[seq], seq == s.seq))
        n = held[source]
        if source != s.seq:
            self._cut(s.seq, 0)
            self._context.seq_cp(source, s.seq, 0, n)
            self._tokens[s.seq] = known[:n]
        self._cut(s.seq, n)
        self._salts[s.seq] = salt
        return Drafted(Odds.hoped(self._odds.comes_true + BENEFIT), len(s.tokens), n)

    def _known(self, s: Sequence) -> int:
        """How many tokens of a request have cells; never the last one, as what follows it is wanted."""
        its, held = _its(s), self._tokens[s.seq]
        most = min(len(held), len(s.tokens) - 1)
        n = min(its.n_same, most)
        while n < most and held[n] == s.tokens[n]:
            n += 1
        its.n_same = n
        return n

    def _cut(self, seq: int, n: int) -> None:
        if n < len(self._tokens[seq]):
            self._context.seq_rm(seq, n)
            del self._tokens[seq][n:]

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
            _its(s).guess = guess.copy()  # the other one may be shed
        return guesses

    def _behind(self, wishes: Iterable[Sequence], budget_ms: float) -> tuple[list[Rows], bool]:
        """What came since, those of whom little is missing first, and whether a prompt is among it."""
        behind = sorted(wishes, key=lambda s: len(s.tokens) - self._known(s))
        n_left = self._context.batch.n_rows_max
        if prompts := len(behind[-1].tokens) - self._known(behind[-1]) > FEW:
            n_left = self.pace.chunk(n_left, budget_ms)
        rows: list[Rows] = []
        for s in behind:
            n_same = self._known(s)
            self._cut(s.seq, n_same)
            if piece := s.tokens[n_same : n_same + n_left]:
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
            n_held = len(self._tokens[s.seq])
            if is_whole := n_held + len(tokens) >= len(s.tokens):
                whole.append(s)
            known = [token if token < self._n_own else 0 for token in tokens]
            batch.add(s.seq, n_held, known, n_wanted=int(is_whole))
        if not (self._context.decode() or (self._make_room(running) and self._context.decode())):
            return None
        n_rows = 0
        for s, tokens in rows:
            self._tokens[s.seq] += tokens
            n_rows += len(tokens)
        likeliest = self._context.logits()[:, : self._n_words].argmax(axis=1).tolist() if whole else []
        self._n_calls += 1
        self.pace.note(n_rows, n_rows if prompts else 0, (time.perf_counter() - start_s) * 1e3)
        return dict(zip(whole, likeliest, strict=True))

    def _make_room(self, running: Many[Sequence]) -> bool:
        """Give up what is known of requests that ended; False when there is no such thing."""
        busy = {s.seq for s in running}
        idle = [seq for seq, tokens in enumerate(self._tokens) if tokens and seq not in busy]
        for seq in idle:
            self._cut(seq, 0)
        return bool(idle)

    def _give_up(self, s: Sequence) -> None:
        """There are not enough cells for all: nothing is guessed for this one until hope has risen again."""
        self._cut(s.seq, 0)
        its = _its(s)
        its.n_same, its.odds.comes_true = 0, 0.0


def _its(s: Sequence) -> Drafted:
    assert s.drafted is not None, "it was not looked at"
    return s.drafted
