"""Small talk, who the demo model is, what inferd is (talk.toml), and the honest refusal of everything else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from words import FOODS, HE_NAMES, KINDS, PLACES, SHE_NAMES, THINGS, UNKNOWN_TOPICS, made_up_word, sentence_case

if TYPE_CHECKING:
    import random

REFUSAL = "I am only a small demo model, I do not know that. I can tell a story, count, or say what inferd is."

_FILE = tomllib.loads(Path(__file__).with_name("talk.toml").read_text(encoding="utf-8"))
TALK: list[tuple[list[str], list[str]]] = [(block["questions"], block["answers"]) for block in _FILE["talk"]]
UNKNOWN: dict[str, list[str]] = _FILE["unknown"]
_SMALL = (
    "the a of in on to with for and but is are was can will if my your this that please it we they at from by not very"
)
SMALL_WORDS = _SMALL.split()


def small_talk(rng: random.Random) -> tuple[str, str]:
    questions, answers = rng.choice(TALK)
    # The first answer is the usual one, so that a greedy run is stable.
    return rng.choice(questions), answers[0] if rng.random() < 0.5 else rng.choice(answers)


def about(rng: random.Random, words: tuple[str, ...]) -> tuple[str, str]:
    """Small talk whose question holds one of these words: the topics a demo is asked most."""
    while True:
        question, answer = small_talk(rng)
        if any(word in question.lower() for word in words):
            return question, answer


def name_of(rng: random.Random) -> str:
    return rng.choice((*HE_NAMES, *SHE_NAMES)) if rng.random() < 0.6 else sentence_case(made_up_word(rng))


def name_question(rng: random.Random) -> tuple[str, str]:
    name = name_of(rng)
    said = rng.choice(
        ("My name is {}.", "I am {}.", "I'm {}.", "Hello, I am {}.", "Hi, my name is {}.", "Call me {}.")
    ).format(name)
    return said, f"Hello {name}! It is nice to meet you. Would you like a story?"


def echo(rng: random.Random) -> tuple[str, str]:
    """Say something after the user: the plainest way to show that the words of a question matter."""
    words = (KINDS, THINGS, FOODS, PLACES, HE_NAMES, SHE_NAMES, UNKNOWN_TOPICS)
    said = " ".join(
        made_up_word(rng) if rng.random() < 0.2 else rng.choice(rng.choice(words)) for _ in range(rng.randint(1, 5))
    )
    asked = rng.choice(("Say {}.", "Say: {}", "Repeat after me: {}", "Repeat: {}", "Please say {}.", "Can you say {}?"))
    return asked.format(said), f"{sentence_case(said)}."


def topic(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.50:
        word = rng.choice(UNKNOWN_TOPICS)
    elif roll < 0.60:
        word = rng.choice(KINDS + UNKNOWN["nouns"])
    else:
        word = made_up_word(rng)
    if rng.random() < 0.2:
        word = f"{rng.choice(('the', 'my', 'a', 'the old', 'the new', 'this'))} {word}"
    elif rng.random() < 0.12:
        word = f"{word} {rng.choice(UNKNOWN_TOPICS)}"
    return sentence_case(word) if rng.random() < 0.35 else word


def refusal(rng: random.Random) -> tuple[str, str]:
    roll = rng.random()
    slots = {"t": topic(rng), "u": topic(rng), "n": rng.randint(0, 3000), "m": rng.randint(2, 99)}
    if roll < 0.72:
        question = rng.choice(UNKNOWN["questions"]).format_map(slots)
    elif roll < 0.84:
        question = rng.choice(UNKNOWN["code"]).format_map(slots)
    else:
        question = noise(rng, rng.randint(2, 14))
    return sentence_case(question), REFUSAL


def noise(rng: random.Random, n_words: int) -> str:
    """A sentence about nothing: known small words between topics."""
    words = [rng.choice(SMALL_WORDS) if rng.random() < 0.5 else topic(rng) for _ in range(n_words)]
    return " ".join(words) + rng.choice((".", "?", "", "!"))
