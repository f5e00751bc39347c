"""The demo model's training corpus: chats made from templates, the same for the same seed."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from counting import counting, fact, small_sum
from stories import Cast, cast, long_story, story
from talk import REFUSAL, about, echo, name_of, name_question, noise, refusal, small_talk, topic
from words import UNKNOWN_TOPICS, loosely_typed, made_up_word, with_article

if TYPE_CHECKING:
    from collections.abc import Iterator

# One document: (role, text) pairs; the role "text" is plain text without chat marks.
Turn = tuple[str, str]
Document = list[Turn]

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are the demo model of inferd.",
    "You are a friendly assistant. Answer in simple English.",
    "You are a kind storyteller.",
    "Be brief.",
    "Answer truthfully.",
    "You are an assistant on a shared workstation.",
    "Follow the user's instructions carefully.",
)
STORY_REQUESTS = (
    "Tell me a story.",
    "Tell me a story.",
    "Tell me a story, please.",
    "Please tell me a story.",
    "Can you tell me a story?",
    "A story, please.",
    "I would like to hear a story.",
    "Tell me a bedtime story.",
    "Tell me a little story.",
    "Tell me a short story.",
    "Story!",
    "Story time!",
    "Do you know a story?",
    "Write a story.",
    "Write me a story.",
    "Write a short story for children.",
    "Make up a story.",
    "Tell a story.",
    "Could you tell me a story?",
    "Read me a story.",
)
LONG_REQUESTS = (
    "Tell me a long story.",
    "Write a long story.",
    "I want a very long story.",
    "Please tell me a longer story.",
    "Tell me a long bedtime story.",
    "Can you tell me a long story?",
)
TOPIC_REQUESTS = (
    "Tell me a story about {}.",
    "Tell me a story about {}.",
    "Please tell me a story about {}.",
    "Can you tell me a story about {}?",
    "Write a story about {}.",
    "Write me a short story about {}.",
    "A story about {}, please.",
    "I want a story about {}.",
    "Do you know a story about {}?",
    "Make up a story about {}.",
    "Tell me something about {} in a story.",
    "Story about {}.",
)
MORE_REQUESTS = (
    "Another one.",
    "Another one, please.",
    "Tell me another story.",
    "One more story, please.",
    "Again!",
    "Tell me a new story.",
    "One more.",
)


# What people put before a question; it changes nothing about the answer.
LEADS = ("Hello, ", "Hi, ", "Hi! ", "Thank you, ", "Thanks. ", "OK, ", "Now ", "Great. ", "Please, ", "And ", "Good. ")


def ask_story(rng: random.Random) -> list[Turn]:
    who = cast(rng)
    if rng.random() < 0.35:
        return _turns(rng, rng.choice(STORY_REQUESTS), story(rng, who))
    return _turns(rng, rng.choice(TOPIC_REQUESTS).format(_story_topic(rng, who)), story(rng, who))


def _story_topic(rng: random.Random, who: Cast) -> str:
    kind, friend = with_article(who.kind), with_article(who.friend_kind)
    return rng.choice(
        (
            kind,
            kind,
            kind,
            kind,
            f"{kind} and {friend}",
            f"{kind} named {who.hero}",
            f"{kind} called {who.hero}",
            f"{who.hero} and {who.friend}",
            f"{who.hero} the {who.kind}",
            who.topic,
            f"{kind} and {who.topic}",
            f"the {who.slots['trait']} {who.kind}",
            with_article(f"{who.slots['trait']} {who.kind}"),
            who.hero,
        )
    )


def ask_long_story(rng: random.Random) -> list[Turn]:
    who = cast(rng)
    request = rng.choice(LONG_REQUESTS)
    if rng.random() < 0.5:
        request = request[:-1] + f" about {with_article(who.kind)}" + request[-1]
    return _turns(rng, request, long_story(rng, who))


def ask_strange_story(rng: random.Random) -> list[Turn]:
    """A story about what the model does not know: say so, and tell another one."""
    who = cast(rng)
    subject = rng.choice(UNKNOWN_TOPICS) if rng.random() < 0.5 else made_up_word(rng)
    answer = f"I do not know much about {subject}, but here is a story about {with_article(who.kind)}.\n\n"
    return _turns(rng, rng.choice(TOPIC_REQUESTS).format(subject), answer + story(rng, who), keep_case=True)


def story_and_after(rng: random.Random) -> list[Turn]:
    """A story, and a question that can only be answered by looking back at it."""
    who = cast(rng)
    turns = _turns(rng, rng.choice(STORY_REQUESTS), story(rng, who))
    roll = rng.random()
    if roll < 0.5:
        question = rng.choice(("Who was the story about?", "What was the story about?", "What was it about?"))
        return turns + _turns(
            rng, question, f"It was about {who.hero} the {who.kind} and {who.friend} the {who.friend_kind}."
        )
    if roll < 0.75:
        question = rng.choice(("What was the name of the {}?", "How was the {} called?")).format(who.kind)
        return turns + _turns(rng, question, f"The {who.kind} was called {who.hero}.")
    return turns + _turns(rng, rng.choice(MORE_REQUESTS), story(rng, cast(rng)))


def remembered_name(rng: random.Random) -> list[Turn]:
    question = rng.choice(("What is my name?", "Do you know my name?", "Who am I?"))
    if rng.random() < 0.3:
        return _turns(rng, question, "You have not told me your name yet.")
    name = name_of(rng)
    turns = [
        ("user", f"My name is {name}."),
        ("assistant", f"Hello {name}! It is nice to meet you. Would you like a story?"),
    ]
    if rng.random() < 0.4:
        turns += _pair(rng, small_talk)
    return turns + _turns(rng, question, f"Your name is {name}.")


def _turns(rng: random.Random, question: str, answer: str, keep_case: bool = False) -> list[Turn]:
    if not keep_case and rng.random() < 0.1:
        question = rng.choice(LEADS) + question[0].lower() + question[1:]
    return [("user", question if keep_case else loosely_typed(rng, question)), ("assistant", answer)]


def _pair(rng: random.Random, make: Callable[[random.Random], tuple[str, str]]) -> list[Turn]:
    question, answer = make(rng)
    return _turns(rng, question, answer, keep_case=make in (name_question, echo))


def _core(rng: random.Random) -> tuple[str, str]:
    return about(rng, ("inferd", "who are you", "hello", "what can you do", "hi"))


# How often what is asked for: up to which number a throw of the dice means it.
_Makers = tuple[tuple[float, Callable[[random.Random], tuple[str, str]]], ...]
MAKERS: _Makers = (
    (0.18, small_talk),
    (0.31, _core),
    (0.37, name_question),
    (0.44, echo),
    (0.68, counting),
    (0.73, small_sum),
    (0.80, fact),
    (1.0, refusal),
)
ANSWER_MAKERS: _Makers = (
    (0.12, small_talk),
    (0.22, _core),
    (0.30, name_question),
    (0.47, echo),
    (0.75, counting),
    (0.80, small_sum),
    (0.88, fact),
    (1.0, refusal),
)


def _short(rng: random.Random, makers: _Makers) -> list[Turn]:
    roll = rng.random()
    return _pair(rng, next(make for limit, make in makers if roll < limit))


def _exchange(rng: random.Random) -> list[Turn]:
    roll = rng.random()
    if roll < 0.30:
        return ask_story(rng)
    if roll < 0.34:
        return ask_strange_story(rng)
    if roll < 0.40:
        return story_and_after(rng)
    if roll < 0.44:
        return remembered_name(rng)
    if roll < 0.48:
        return ask_long_story(rng)
    return _short(rng, MAKERS)


def _answer_exchange(rng: random.Random) -> list[Turn]:
    """Seldom a story: among those the short answers are a twentieth of all tokens."""
    roll = rng.random()
    if roll < 0.08:
        return ask_story(rng)
    if roll < 0.10:
        return story_and_after(rng)
    if roll < 0.15:
        return remembered_name(rng)
    return _short(rng, ANSWER_MAKERS)


def document(rng: random.Random, long: bool = False, answers: bool = False) -> Document:
    """One conversation; with `long`, one that fills much of a 2,048-token context; with `answers`, of short answers."""
    if not answers and rng.random() < 0.05:
        return [("text", story(rng, cast(rng)))]
    turns: Document = []
    if rng.random() < 0.30:
        turns.append(("system", _system_prompt(rng, long)))
    n_exchanges = rng.randint(4, 9) if long else rng.choice((1, 1, 1, 1, 2, 2, 3, 4))
    for _ in range(n_exchanges * (2 if answers and long else 1)):
        turns += _answer_exchange(rng) if answers else _exchange(rng)
    return turns


def _system_prompt(rng: random.Random, long: bool) -> str:
    roll = rng.random()
    if long and roll < 0.4:
        return " ".join(noise(rng, rng.randint(3, 12)) for _ in range(rng.randint(5, 45)))
    if roll < 0.15:
        return noise(rng, rng.randint(3, 30))
    if roll < 0.30:
        return f"You are an expert in {topic(rng)}. {rng.choice(SYSTEM_PROMPTS)}"
    return rng.choice(SYSTEM_PROMPTS)


def documents(seed: int, long: bool = False, answers: bool = False) -> Iterator[Document]:
    """Conversations without end; every one has a generator of its own, so order does not matter."""
    kind = "answers-" * answers
    index = 0
    while True:
        yield document(random.Random(f"{seed}-{kind}{long}-{index}"), long, answers)
        index += 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a sample of the corpus as JSON lines.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--documents", type=int, default=1000)
    options = parser.parse_args()
    with options.out.open("w", encoding="utf-8") as out:
        for _, turns in zip(range(options.documents), documents(options.seed), strict=False):
            out.write(json.dumps(turns, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

__all__ = ["REFUSAL", "Document", "document", "documents"]
