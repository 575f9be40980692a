"""Made-up text of two kinds: leaflets that are public, and messages of patients to their clinic that are not.

No sentence comes from a person. Leaflets and messages share everyday words for the same things, as they would; they
share no sentence form and no seed, and some words of the messages are in no leaflet.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

PERSON, TOPIC, TEXT, LABEL = "patient", "topic", "message", "urgent"
LEAFLET_SEED, MESSAGE_SEED = 20_001, 47
PERSONS = 3000

TOPICS = {
    "heart": ("chest pain", "palpitations", "chest pressure", "swollen ankles", "dizziness"),
    "stomach": ("stomach cramps", "vomiting", "heartburn", "diarrhoea", "belly ache"),
    "skin": ("rash", "itching", "hives", "blisters", "swelling"),
    "joints": ("knee pain", "back pain", "stiffness", "hip pain", "shoulder pain"),
    "lungs": ("cough", "wheezing", "shortness of breath", "chest tightness", "phlegm"),
    "head": ("headache", "migraine", "blurred vision", "ringing ears", "neck pain"),
}
# Each of the three signs has two sides, alarming first.
STRONG = (
    "severe terrible unbearable intense awful crushing violent agonising extreme excruciating stabbing horrible "
    "dreadful raging piercing brutal fierce savage"
)
WEAK = (
    "mild slight faint minor light dull bearable gentle little modest subtle tolerable small weak soft moderate "
    "harmless trifling"
)
DEGREE = (tuple(STRONG.split()), tuple(WEAK.split()))
COURSE = (
    (
        "getting worse", "spreading", "stronger every hour", "climbing", "worsening", "out of control", "increasing",
        "mounting", "escalating", "rising fast",
    ),
    (
        "getting better", "fading", "weaker every day", "settling", "improving", "under control", "decreasing",
        "easing", "vanishing", "healing well",
    ),
)  # fmt: skip
EFFECT = (
    (
        "cannot sleep", "cannot stand", "cannot eat", "can hardly walk", "can hardly talk", "have to lie down",
        "keep collapsing", "stay in bed", "need help with everything",
    ),
    (
        "can sleep", "can stand", "can eat", "walk as usual", "talk as usual", "can go to work",
        "do some sports", "look after the garden", "need no help",
    ),
)  # fmt: skip
# What is said of them is of someone else.
OTHERS = ("mother", "father", "neighbour", "sister", "brother", "friend")

LEAFLETS = (
    "this leaflet is about {degree} {symptom} which is {course} in people who {effect} .",
    "if you {effect} because of {degree} {symptom} , above all when it is {course} , read on .",
    "when {symptom} is {degree} and {course} and you {effect} : what to do .",
    "{symptom} is often {degree} . here it is {course} and patients {effect} .",
    "do you have {degree} {symptom} ? is it {course} ? this page is for all who {effect} .",
    "unlike the {other_degree} {other_symptom} of a {other} , {degree} {symptom} that is {course} , if you {effect} .",
    (
        "a {other} with {other_symptom} that is {other_course} is another matter : "
        "you {effect} , it is {degree} and {course} ."
    ),
)
MESSAGES = (
    "hello , for {when} now i have {degree} {symptom} , it is {course} and i {effect} .{aside} thanks",
    "{aside} i {effect} at the moment . the {symptom} is {degree} and {course} , for {when} now . kind regards",
    "good morning doctor , my {symptom} started {when} ago . it is {course} . i {effect} , it feels {degree} .{aside}",
    "it is me again about the {symptom} : {degree} , {course} , {when} already . i {effect} .{aside}",
    "dear team , i {effect} . {degree} {symptom} for {when} .{aside} mine is {course} . what should i do",
)
ASIDE = " my {other} once had {other_degree} {other_symptom} that was {other_course} ."
WHEN = ("a day", "two days", "a week", "some hours", "three weeks", "a night")


def leaflets(count: int, seed: int = LEAFLET_SEED) -> tuple[list[str], NDArray[np.bool_]]:
    """Public text, and the three keywords by which its publisher sorts it: alarming degree, course, effect.

    Shape of the keywords: (count, 3). Nobody has sorted a leaflet by whether a clinic should call back.
    """
    draw = np.random.default_rng(seed)
    signs = draw.random((count, 3)) < 0.5
    return [_write(_one(draw, LEAFLETS), draw, str(draw.choice([*TOPICS])), each) for each in signs], signs


def messages(count: int = PERSONS, seed: int = MESSAGE_SEED) -> pd.DataFrame:
    """One message a patient: id, topic, text, and whether the clinic has to call back today.

    It has to if at least two of three signs are alarming: degree, course, what the patient can still do. What somebody
    else once had does not count. Four in a hundred were labelled by mistake.
    """
    draw = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        topic, signs = str(draw.choice([*TOPICS])), draw.random(3) < 0.48
        text = _write(_one(draw, MESSAGES), draw, topic, signs)
        urgent = (signs.sum() >= 2) != (draw.random() < 0.04)
        rows.append((f"P-{i:05d}", topic, text, int(urgent)))
    return pd.DataFrame(rows, columns=[PERSON, TOPIC, TEXT, LABEL])


def _write(form: str, draw: np.random.Generator, topic: str, alarming: NDArray[np.bool_]) -> str:
    """A sentence form filled in. What is said of others is drawn independently of the signs."""
    sides = [0 if sign else 1 for sign in alarming]
    others = draw.integers(0, 2, 2)
    aside = ASIDE if draw.random() < 0.5 else ""
    return " ".join(
        form.replace("{aside}", aside)
        .format(
            degree=_one(draw, DEGREE[sides[0]]),
            course=_one(draw, COURSE[sides[1]]),
            effect=_one(draw, EFFECT[sides[2]]),
            symptom=_one(draw, TOPICS[topic]),
            when=_one(draw, WHEN),
            other=_one(draw, OTHERS),
            other_symptom=_one(draw, TOPICS[str(draw.choice([*TOPICS]))]),
            other_degree=_one(draw, DEGREE[others[0]]),
            other_course=_one(draw, COURSE[others[1]]),
        )
        .split()
    )


def _one(draw: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(draw.integers(len(choices)))]
