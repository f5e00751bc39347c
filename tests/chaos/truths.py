"""What clients of the chaos run ask, and what the answers are: of the fake engine by its rule, of others as asked in
peace."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from inferd.backends.fake import _Run, token_bytes
from inferd.backends.messages import SamplingParams, Submit

from .history import Truth

if TYPE_CHECKING:
    from inferd import Client

FAKES = ("small", "other")
REAL = "demo"
MAX_TOKENS = 48

Prompt = tuple[str, str, int]  # key, what is asked, at most so many tokens; 0: as many as there are


def _fake_prompts() -> list[Prompt]:
    rng = random.Random(1)
    lengths = [1, 2, 3, *(rng.randrange(4, 200) for _ in range(60))]
    return [(f"fake {i}", f"{i} fake:tokens={n}", 0) for i, n in enumerate(lengths)]


TOPICS = ("A small dog", "The river", "My friend said", "In the morning", "One, two, three,", "Tom was happy because")
PROMPTS: dict[str, list[Prompt]] = {
    **{model: _fake_prompts() for model in FAKES},
    REAL: [(f"{topic} {n}", topic, n) for topic in TOPICS for n in (1, 8, MAX_TOKENS)],
}


def model_of(key: str) -> str:
    """Whose prompt it is; empty when it may be any of the fakes'."""
    return "" if key.startswith("fake ") else REAL


def of_fakes() -> dict[str, Truth]:
    """By key."""
    return {key: of_fake(prompt) for key, prompt, _ in PROMPTS[FAKES[0]]}


def of_fake(prompt: str) -> Truth:
    """What a greedy request with this prompt is answered."""
    said = list(prompt.encode())
    run = _Run(Submit("", 1, said, len(said), SamplingParams(max_tokens=1, temperature=0.0)))
    tokens = []
    while run.n_done < run.length:
        tokens.append(run.token())
        run.n_done += 1
    return Truth(tokens, b"".join(map(token_bytes, tokens)).decode())


def of_real(client: Client) -> dict[str, Truth]:
    """As answered while nothing is wrong; the model's numerics are exact."""
    truths = {}
    for key, prompt, max_tokens in PROMPTS[REAL]:
        tokens: list[int] = []
        text = ""
        for delta in client.generate(REAL, prompt, max_tokens=max_tokens, temperature=0.0, raw=True):
            tokens += delta.tokens
            text += delta.text
        truths[key] = Truth(tokens, text)
    return truths
