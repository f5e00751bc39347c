"""Counting, small sums and the few facts that the demo model knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

NUMBER_WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
SEASONS = ("spring", "summer", "autumn", "winter")
RAINBOW = ("red", "orange", "yellow", "green", "blue", "indigo", "violet")

COLOURS = {
    "the sky": "blue",
    "grass": "green",
    "snow": "white",
    "a lemon": "yellow",
    "a tomato": "red",
    "the sun": "yellow",
    "coal": "black",
    "a banana": "yellow",
    "a carrot": "orange",
    "milk": "white",
    "a leaf": "green",
    "the sea": "blue",
}
SOUNDS = {
    "cow": "moo",
    "dog": "woof",
    "cat": "meow",
    "duck": "quack",
    "sheep": "baa",
    "pig": "oink",
    "owl": "hoo",
    "frog": "ribbit",
    "lion": "roar",
    "bee": "buzz",
    "horse": "neigh",
    "mouse": "squeak",
}
OPPOSITES = (
    ("big", "small"),
    ("hot", "cold"),
    ("day", "night"),
    ("up", "down"),
    ("old", "young"),
    ("fast", "slow"),
    ("black", "white"),
    ("left", "right"),
    ("happy", "sad"),
    ("open", "closed"),
    ("wet", "dry"),
    ("long", "short"),
)


def spelled(rng: random.Random, number: int) -> str:
    """Digits or, for small numbers, sometimes the word."""
    if number <= 20 and rng.random() < 0.45:
        return NUMBER_WORDS[number]
    return str(number)


def counting(rng: random.Random) -> tuple[str, str]:
    roll = rng.random()
    if roll < 0.40:
        last = rng.choice((3, 5, 10, 10, 10, 10, 12, 15, 20, 20, 30, 50, 100, rng.randint(2, 60)))
        return _count_to(rng, last)
    if roll < 0.78:
        first = rng.randint(0, 80) if rng.random() < 0.5 else rng.randint(0, 15)
        last = min(100, first + rng.randint(2, 22))
        return _count_from(rng, first, last)
    first = rng.choice((3, 5, 10, 10, 10, 20, rng.randint(4, 30)))
    last = rng.choice((0, 1, 1, 1, 1))
    if rng.random() < 0.3:
        last = rng.randint(0, first - 2)
    return _count_down(rng, first, last)


def _count_to(rng: random.Random, last: int) -> tuple[str, str]:
    asked = spelled(rng, last)
    question = rng.choice(
        (
            f"Count to {asked}.",
            f"Count to {asked}.",
            f"Please count to {asked}.",
            f"Can you count to {asked}?",
            f"Count up to {asked} for me.",
            f"Count from one to {asked}.",
            f"Count from 1 to {asked}.",
            f"Could you please count to {asked}?",
            f"Show me the numbers up to {asked}.",
            f"I want you to count to {asked}.",
        )
    )
    return question, listed(range(1, last + 1))


def _count_from(rng: random.Random, first: int, last: int) -> tuple[str, str]:
    begin, end = (str(first), str(last)) if rng.random() < 0.7 else (spelled(rng, first), spelled(rng, last))
    question = rng.choice(
        (
            f"Count from {begin} to {end}.",
            f"Count from {begin} to {end}.",
            f"Please count from {begin} to {end}.",
            f"Can you count from {begin} to {end}?",
            f"Start at {begin} and count to {end}.",
            f"Count on from {begin} until {end}.",
        )
    )
    return question, listed(range(first, last + 1))


def _count_down(rng: random.Random, first: int, last: int) -> tuple[str, str]:
    begin, end = spelled(rng, first), spelled(rng, last)
    questions = [
        f"Count down from {begin} to {end}.",
        f"Count backwards from {begin} to {end}.",
        f"Count from {first} down to {last}.",
    ]
    if last == 1:
        questions += [
            f"Count down from {begin}.",
            f"Can you count down from {begin}?",
            f"Please count backwards from {begin}.",
        ]
    return rng.choice(questions), listed(range(first, last - 1, -1))


def listed(numbers: range) -> str:
    return ", ".join(map(str, numbers)) + "."


def small_sum(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    left, right = spelled(rng, a), spelled(rng, b)
    question = rng.choice(
        (
            f"What is {left} plus {right}?",
            f"What is {a} + {b}?",
            f"{a} + {b}",
            f"{a}+{b}=?",
            f"How much is {left} and {right}?",
        )
    )
    return question, f"{a} plus {b} is {a + b}."


def fact(rng: random.Random) -> tuple[str, str]:
    return rng.choice((_calendar, _neighbours, _neighbours, _colour, _sound, _opposite))(rng)


def _calendar(rng: random.Random) -> tuple[str, str]:
    days, months, seasons, rainbow = (", ".join(words) for words in (DAYS, MONTHS, SEASONS, RAINBOW))
    answer_days = f"The days of the week are {days}."
    answer_months = f"The months of the year are {months}."
    answer_seasons = f"The four seasons are {seasons}."
    answer_rainbow = f"The colours of the rainbow are {rainbow}."
    return rng.choice(
        (
            ("What are the days of the week?", answer_days),
            ("Name the days of the week.", answer_days),
            ("Tell me the days of the week.", answer_days),
            ("List the days of the week.", answer_days),
            ("What are the months of the year?", answer_months),
            ("Name the months.", answer_months),
            ("List all months of the year.", answer_months),
            ("What are the seasons?", answer_seasons),
            ("Name the four seasons.", answer_seasons),
            ("What are the colours of the rainbow?", answer_rainbow),
            ("What are the colors of the rainbow?", answer_rainbow),
            ("Name some colours.", "Some colours are red, blue, green, yellow, black and white."),
            ("Tell me some colors.", "Some colours are red, blue, green, yellow, black and white."),
            ("How many days are in a week?", "A week has seven days."),
            ("How many months are in a year?", "A year has twelve months."),
            ("How many seasons are there?", "There are four seasons."),
        )
    )


def _neighbours(rng: random.Random) -> tuple[str, str]:
    words, noun = rng.choice(((DAYS, "day"), (MONTHS, "month")))
    i, after = rng.randrange(len(words)), rng.random() < 0.6
    other = words[(i + (1 if after else -1)) % len(words)]
    side = "after" if after else "before"
    question = rng.choice(
        (
            f"What comes {side} {words[i]}?",
            f"Which {noun} comes {side} {words[i]}?",
            f"What {noun} is {side} {words[i]}?",
        )
    )
    return question, f"{other} comes {side} {words[i]}."


def _colour(rng: random.Random) -> tuple[str, str]:
    thing, colour = rng.choice(list(COLOURS.items()))
    answer = f"{thing[0].upper()}{thing[1:]} is {colour}."
    return rng.choice((f"What colour is {thing}?", f"What color is {thing}?", f"Which colour has {thing}?")), answer


def _sound(rng: random.Random) -> tuple[str, str]:
    animal, sound = rng.choice(list(SOUNDS.items()))
    question = rng.choice(
        (f"What does a {animal} say?", f"What sound does a {animal} make?", f"What does the {animal} say?")
    )
    return question, f'The {animal} says "{sound}".'


def _opposite(rng: random.Random) -> tuple[str, str]:
    a, b = rng.choice(OPPOSITES)
    if rng.random() < 0.5:
        a, b = b, a
    question = rng.choice((f"What is the opposite of {a}?", f"Tell me the opposite of {a}.", f"Opposite of {a}?"))
    return question, f"The opposite of {a} is {b}."
