"""Tiny stories for the demo model: one plot, two characters, and many ways to say each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from plots import PLOTS, Plot
from words import (
    FOODS,
    HE_NAMES,
    HOMES,
    KINDS,
    PLACES,
    SHE_NAMES,
    THINGS,
    TRAITS,
    WEATHER,
    sentence_case,
    with_article,
)

if TYPE_CHECKING:
    import random

OPENINGS = (
    "Once upon a time there was {a_trait_kind} named {hero}. {He} lived {home}.",
    "Once upon a time, {home}, there lived {a_trait_kind}. {His} name was {hero}.",
    "Long ago {a_trait_kind} called {hero} lived {home}.",
    "There once was {a_trait_kind} whose name was {hero}. {His} house stood {home}.",
    "{hero} was {a_trait_kind}. {He} lived {home}, and {he} liked it there.",
    "Far away, {home}, lived {a_kind} named {hero}. Everybody said that {he} was very {trait}.",
)
HABITS = (
    "Every morning {he} went to {place} and said hello to everybody on the way.",
    "Most of all {he} loved {food}, and {he} never ate it alone.",
    "In the evening {he} liked to sit at the window and look at the clouds.",
    "{He} could whistle three songs, and {he} knew all the paths around {place}.",
    "{He} had one treasure, and that was {a_thing}.",
    "{His} neighbours liked {him}, because {he} always had time for a good word.",
    "When it rained, {he} read old books, and when the sun came out, {he} ran to {place}.",
    "{He} collected round stones and gave each of them a name.",
)
MORNINGS = (
    "One {weather} morning {he} got up early and set out for {place}.",
    "On a {weather} day {hero} packed some {food} and started walking.",
    "One {weather} day everything was different.",
    "It was a {weather} morning, and the whole world smelled of rain and bread.",
    "One day, when the sky was {weather_sky}, {hero} had a great plan.",
)
FEELINGS = (
    "{hero} sat down and felt very small.",
    '"Oh no," said {hero}. "What shall I do now?"',
    "{hero} did not know whether to laugh or to cry.",
    "{He} took a deep breath and thought for a while.",
    '"I will not give up," {he} said, but {his} voice was not quite sure.',
    "For a moment {hero} wanted to go back to bed.",
)
MEETINGS = (
    "Just then {a_fkind} came along the path. {Fhis} name was {friend}, and {fhe} stopped at once.",
    "Then {he} heard a voice behind {him}. It was {friend} the {fkind}, who lived near {place}.",
    "At that moment {friend}, {a_ftrait_fkind}, looked around the corner.",
    'After a while {a_ftrait_fkind} sat down next to {him}. "I am {friend}," {fhe} said.',
    "Luckily {friend} the {fkind} was passing by with a big basket.",
)
QUESTIONS = (
    '"Why do you look so sad?" asked {friend}. {hero} told {fhim} the whole story.',
    '"Can I help you?" asked {friend}. "Nobody can help me," said {hero}, and then {he} told everything.',
    '"What has happened here?" {friend} wanted to know, and {hero} explained it all from the beginning.',
    "{friend} listened carefully and did not laugh once.",
    '"Two heads are better than one," said {friend}. "Tell me about it."',
)
AGREEMENTS = (
    '"Do you really think so?" asked {hero}. "Let us try," said {friend}.',
    "{hero} had never thought of that. {He} jumped up at once.",
    '"That is a good idea!" said {hero}.',
    "{hero} was not sure, but {he} nodded.",
    "{hero} smiled for the first time that day.",
)
THANKS = (
    '"Thank you," said {hero}. "Without you I would still be sitting there."',
    '"We did it!" they shouted, and they danced in a circle.',
    "{hero} hugged {friend} and did not let go for a long time.",
    '"How can I thank you?" asked {hero}. "Be my friend," said {friend}, "that is enough."',
    "{hero} gave {friend} {a_thing2} as a present, and {friend} was very happy.",
)
ENDINGS = (
    "And if you walk past {place} today, you may see them sitting there, {hero} the {kind} and {friend} the {fkind}.",
    "That night {hero} fell asleep with a smile.",
    "And so {hero} and {friend} became the best of friends.",
    "In the evening they shared {food2} and looked at the moon.",
    "They lived happily, and they never forgot that day.",
)
MORALS = (
    "For what one cannot do alone, two can often do together.",
    "Since then {hero} knows that asking for help is a brave thing to do.",
    "And that is why {he} never says that something is impossible.",
    "A small kindness, {he} learned, can go a very long way.",
    "It is good to be clever, but it is better to have a friend.",
    "The end.",
)
STEPS = (OPENINGS, HABITS, MORNINGS, "problem", FEELINGS, "attempt", MEETINGS, QUESTIONS, "advice", AGREEMENTS)
STEPS_AFTER = ("solution", THANKS, "result", ENDINGS, MORALS)
AGAIN = (
    "But that was not the end of it.",
    "A few weeks later there was another adventure.",
    "The next year something new happened.",
    "This was only the first half of the story.",
)
AGAIN_HELP = (
    '"I know whom to ask," thought {hero}, and {he} ran to {friend} as fast as {he} could.',
    "Of course {friend} came at once, for friends do not need to be called twice.",
    'Then there was a knock at the door. "I thought you might need me," said {friend}.',
)


@dataclass(frozen=True, slots=True)
class Cast:
    """Who and what a story is about."""

    hero: str
    kind: str
    friend: str
    friend_kind: str
    plot: Plot
    slots: dict[str, str]

    @property
    def topic(self) -> str:
        return self.plot.topic.format_map(self.slots)


def cast(rng: random.Random) -> Cast:
    kind, friend_kind = rng.sample(KINDS, 2)
    (hero, hero_he), (friend, friend_he) = _person(rng, kind), _person(rng, friend_kind)
    while friend == hero:
        friend, friend_he = _person(rng, friend_kind)
    slots = _pronouns("", hero_he) | _pronouns("f", friend_he) | _scenery(rng)
    trait, friend_trait = rng.sample(TRAITS, 2)
    slots |= {
        "hero": hero,
        "kind": kind,
        "trait": trait,
        "a_kind": with_article(kind),
        "a_trait_kind": with_article(f"{trait} {kind}"),
        "friend": friend,
        "fkind": friend_kind,
        "a_fkind": with_article(friend_kind),
        "a_ftrait_fkind": with_article(f"{friend_trait} {friend_kind}"),
    }
    return Cast(hero, kind, friend, friend_kind, rng.choice(PLOTS), slots)


def story(rng: random.Random, who: Cast) -> str:
    """One story, in paragraphs, of about 250 words."""
    first = " ".join(_step(rng, step, who.plot, who.slots) for step in STEPS[:3])
    middle = " ".join(_step(rng, step, who.plot, who.slots) for step in STEPS[3:6])
    help_ = " ".join(_step(rng, step, who.plot, who.slots) for step in STEPS[6:])
    last = " ".join(_step(rng, step, who.plot, who.slots) for step in STEPS_AFTER)
    return "\n\n".join((first, middle, help_, last))


def long_story(rng: random.Random, who: Cast) -> str:
    """Two adventures of the same two friends."""
    plot = rng.choice([plot for plot in PLOTS if plot is not who.plot])
    scenery = _scenery(rng)
    slots = who.slots | scenery
    steps = (MORNINGS, "problem", FEELINGS, "attempt")
    second = " ".join(_step(rng, step, plot, slots) for step in steps)
    third = " ".join(_step(rng, step, plot, slots) for step in (AGAIN_HELP, "advice", AGREEMENTS))
    last = " ".join(_step(rng, step, plot, slots) for step in STEPS_AFTER)
    return "\n\n".join((story(rng, who), f"{rng.choice(AGAIN)} {second}", third, last))


def _step(rng: random.Random, step: str | tuple[str, ...], plot: Plot, slots: dict[str, str]) -> str:
    variants = getattr(plot, step) if isinstance(step, str) else step
    return sentence_case(rng.choice(variants).format_map(slots))


def _person(rng: random.Random, kind: str) -> tuple[str, bool]:
    he = rng.random() < 0.5
    if kind in ("king", "prince", "wizard", "boy", "fisherman"):
        he = True
    if kind in ("queen", "princess", "witch", "girl"):
        he = False
    return rng.choice(HE_NAMES if he else SHE_NAMES), he


def _pronouns(prefix: str, he: bool) -> dict[str, str]:
    words = {"he": "he", "his": "his", "him": "him"} if he else {"he": "she", "his": "her", "him": "her"}
    small = {prefix + key: word for key, word in words.items()}
    return small | {sentence_case(key): sentence_case(word) for key, word in small.items()}


def _scenery(rng: random.Random) -> dict[str, str]:
    thing, other_thing = rng.sample(THINGS, 2)
    food, other_food = rng.sample(FOODS, 2)
    return {
        "home": rng.choice(HOMES),
        "place": rng.choice(PLACES),
        "thing": thing,
        "a_thing": with_article(thing),
        "a_thing2": with_article(other_thing),
        "food": food,
        "food2": other_food,
        "weather": rng.choice(WEATHER),
        "weather_sky": rng.choice(("grey", "blue", "pink", "clear", "full of clouds")),
    }
