"""Titles of the made-up items: words of the topic, and a few that belong to one item. No word tells the motion."""

from collections.abc import Sequence

import numpy as np

from datasets_spec.synthetic.latent import Catalogue

TOPIC_WORDS: tuple[tuple[str, ...], ...] = (
    ("cooking", "noodles", "recipe", "kitchen", "garlic", "dumplings", "chef", "spicy", "breakfast", "soup"),
    ("football", "goal", "penalty", "stadium", "team", "match", "dribble", "coach", "training", "league"),
    ("kitten", "cat", "purring", "whiskers", "naughty", "paws", "sleepy", "litter", "fluffy", "meow"),
    ("city", "street", "night", "subway", "skyline", "rain", "neon", "bridge", "market", "lights"),
    ("beach", "waves", "surfing", "sunset", "island", "sand", "diving", "coral", "holiday", "sea"),
    ("guitar", "song", "singing", "piano", "melody", "concert", "chorus", "lyrics", "band", "cover"),
    ("dance", "choreography", "steps", "studio", "partner", "ballet", "stage", "rhythm", "costume", "spin"),
    ("fitness", "workout", "squats", "gym", "muscles", "running", "yoga", "calories", "plank", "stretch"),
    ("game", "boss", "level", "player", "victory", "teammate", "sniper", "quest", "controller", "speedrun"),
    ("garden", "flowers", "tomatoes", "seeds", "greenhouse", "roses", "harvest", "soil", "balcony", "bonsai"),
    ("makeup", "lipstick", "skin", "foundation", "eyeliner", "hairstyle", "nails", "mirror", "mask", "blush"),
    ("car", "engine", "drift", "garage", "wheels", "highway", "racing", "driver", "motorcycle", "repair"),
)
NAMES = (
    *("Xiao Li", "Anna", "Brother Chen", "Grandma Wu", "Leo", "Mei", "Uncle Zhao", "Sofia", "Little Fang", "Max"),
    *("Auntie Sun", "Yuki", "Old Ma", "Clara", "Hao", "Nina", "Doctor Qian", "Omar", "Lulu", "Pavel"),
)
PLACES = (
    *("Chengdu", "Hangzhou", "the village", "Shanghai", "Harbin", "the old town", "Xi'an", "the countryside"),
    *("Guangzhou", "the north", "Kunming", "Sanya", "the riverside", "Wuhan", "Qingdao", "the mountains"),
)
PATTERNS = (
    "{name} in {place}: {a} {b} {c}, part {number}",
    "{a} {b}! {name} tries {c} for the first time #{tag}",
    "Who taught {name} this {a} {b}? Wait for the {c}... #{tag} #{other}",
    'Day {number} of {a}: {name} says "{b} {c}"',
    "{name}'s {a}, {b} and {c} from {place} #{tag}",
    "{number} seconds of {a} {b} with {name}, {c} at the end",
)


def draw_titles(catalogue: Catalogue, rng: np.random.Generator) -> list[str]:
    """One title per item, in item order; quotes and commas occur, as they do in the real files."""
    return [_title(TOPIC_WORDS[topic], rng) for topic in catalogue.topic]


def _title(words: Sequence[str], rng: np.random.Generator) -> str:
    a, b, c, tag, other = (words[i] for i in rng.choice(len(words), size=5, replace=False))
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    name, place = NAMES[rng.integers(len(NAMES))], PLACES[rng.integers(len(PLACES))]
    title = pattern.format(name=name, place=place, number=rng.integers(2, 60), a=a, b=b, c=c, tag=tag, other=other)
    return title[0].upper() + title[1:]
