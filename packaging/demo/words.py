"""The word lists (words.toml) and small grammar helpers of the demo model's corpus."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

_LISTS: dict[str, list[str]] = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
KINDS = _LISTS["kinds"]
HE_NAMES, SHE_NAMES = _LISTS["he_names"], _LISTS["she_names"]
TRAITS, WEATHER = _LISTS["traits"], _LISTS["weather"]
HOMES, PLACES = _LISTS["homes"], _LISTS["places"]
THINGS, FOODS = _LISTS["things"], _LISTS["foods"]
UNKNOWN_TOPICS = _LISTS["unknown_topics"]


def with_article(noun: str) -> str:
    """`an owl`, `a fox`, `a unicorn`."""
    vowel = noun[0].lower() in "aeiou" and not noun.startswith("uni")
    return f"{'an' if vowel else 'a'} {noun}"


def sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def made_up_word(rng: random.Random) -> str:
    """A word nobody knows, so that the model learns to refuse what it has never seen."""
    heads = "b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh sk st t tr v w x z"
    middles = "a e i o u ai ea ee oo ou"
    tails = "b ck d f g l ll m n ng nt p r rd s st t th x z"
    word = "".join(rng.choice(heads.split()) + rng.choice(middles.split()) for _ in range(rng.choice((1, 1, 2, 2, 3))))
    return word + (rng.choice(tails.split()) if rng.random() < 0.8 else "")


def loosely_typed(rng: random.Random, text: str) -> str:
    """The same words the way people type them: other case, no full stop, a stray blank."""
    roll = rng.random()
    if roll < 0.40:
        text = text.lower()
    elif roll < 0.44:
        text = text.upper()
    elif roll < 0.80:
        text = sentence_case(text)
    roll = rng.random()
    if roll < 0.35:
        text = text.rstrip("?.!")
    elif roll < 0.40:
        text = text.rstrip("?.!") + rng.choice(("!", "!!", "...", " ?", "??", "."))
    return text
