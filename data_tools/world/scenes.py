"""What can be in an image of a world, and which combinations are held out of every training set."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

SHAPES = (
    "ball",
    "star",
    "heart",
    "moon",
    "fish",
    "lion",
    "tree",
    "house",
    "flower",
    "bird",
    "boat",
    "mushroom",
)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SIZES = ("small", "big")
POSITIONS = ("centre", "top left", "top right", "bottom left", "bottom right")
BACKGROUNDS = ("snow", "sand", "grass", "sky", "night", "wood")

CONCEPTS = {
    "zh": ("lion_head", "fish_pork", "ants_tree", "heart_radish", "flower_roll", "bird_nest", "star_blossom"),
    "ja": ("moon_soba", "wood_fish", "flower_dango"),
    "ko": ("moon_village", "star_candy", "flower_shoe"),
    "ru": ("bird_milk", "lion_maw", "fish_oil"),
    "it": ("bird_skewer", "heart_tomato", "star_broth"),
}


@dataclass(frozen=True)
class Vocabulary:
    """What there is in one world: its general things, what varies about them, and its culture concepts."""

    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    sizes: tuple[str, ...]
    """Empty where things are of one size."""
    positions: tuple[str, ...]
    backgrounds: tuple[str, ...]
    concepts: dict[str, tuple[str, ...]]
    """Language -> its culture concepts."""

    @cached_property
    def all_concepts(self) -> tuple[str, ...]:
        """The culture concepts of every language."""
        return tuple(itertools.chain.from_iterable(self.concepts.values()))

    @cached_property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        """What a judge reads off an image: every attribute with its values. A concept is a value of `shape`."""
        names = {"shape": self.shapes + self.all_concepts, "colour": self.colours, "size": self.sizes}
        names |= {"position": self.positions, "background": self.backgrounds}
        return {name: values for name, values in names.items() if values}


SMALL = Vocabulary(SHAPES, COLOURS, SIZES, POSITIONS, BACKGROUNDS, CONCEPTS)
ALL_CONCEPTS = SMALL.all_concepts
ATTRIBUTES = SMALL.attributes

HELD_OUT_FRACTION = 0.1


@dataclass(frozen=True)
class Scene:
    """One image's content: a general noun, or a culture concept, which has no colour of its own to vary."""

    shape: str
    background: str
    colour: str | None = None
    size: str | None = "big"
    position: str = "centre"
    seed: int = field(default=0, compare=False)
    """Seed of the jitter (place, angle, scale, shade) and of the choice of phrasing; not part of what the caption
    says.
    """

    @property
    def is_culture(self) -> bool:
        """Whether this is a culture concept."""
        return self.colour is None

    def attributes(self) -> dict[str, str]:
        """The attributes that a caption of this scene names, and that the judge is asked about."""
        if self.is_culture:
            return {"concept": self.shape, "background": self.background}
        names = {"shape": self.shape, "colour": str(self.colour)} | ({"size": self.size} if self.size else {})
        return names | {"position": self.position, "background": self.background}


def is_held_out(scene: Scene, vocabulary: Vocabulary = SMALL) -> bool:
    """Whether the combination is kept for evaluation: no corpus and no teacher ever sees it.

    Neither does a text encoder, but for native encoders and culture concepts; see `train_text`.
    """
    if scene.is_culture:
        backgrounds, number = vocabulary.backgrounds, vocabulary.all_concepts.index(scene.shape)
        return backgrounds[number % len(backgrounds)] == scene.background
    name = "|".join(scene.attributes().values())
    return hashlib.sha256(name.encode()).digest()[0] < 256 * HELD_OUT_FRACTION


def general_scenes(count: int, seed: int, *, held_out: bool = False, vocabulary: Vocabulary = SMALL) -> list[Scene]:
    """`count` random general scenes, all of them held out or none."""
    return _draw_scenes(_general_combinations(vocabulary, held_out=held_out), count, seed)


def unseen_general_scenes(count: int, taken: int, seed: int, vocabulary: Vocabulary = SMALL) -> list[Scene]:
    """Up to `count` scenes, none held out, of combinations that are not among `general_scenes(taken, seed)`."""
    combinations = _general_combinations(vocabulary, held_out=False)
    seen = set(_draw_scenes(combinations, taken, seed))
    unseen = [scene for scene in combinations if scene not in seen]
    return _draw_scenes(unseen, min(count, len(unseen)), seed) if unseen else []


def _general_combinations(vocabulary: Vocabulary, *, held_out: bool) -> list[Scene]:
    v = vocabulary
    return [
        scene
        for values in itertools.product(v.shapes, v.backgrounds, v.colours, v.sizes or (None,), v.positions)
        if is_held_out(scene := Scene(*values), v) == held_out
    ]


def culture_scenes(
    concepts: tuple[str, ...], count: int, seed: int, *, held_out: bool = False, vocabulary: Vocabulary = SMALL
) -> list[Scene]:
    """`count` random scenes of these culture concepts, all of them held out or none."""
    combinations = [
        scene
        for values in itertools.product(concepts, vocabulary.backgrounds)
        if is_held_out(scene := Scene(*values), vocabulary) == held_out
    ]
    return _draw_scenes(combinations, count, seed)


def _draw_scenes(combinations: list[Scene], count: int, seed: int) -> list[Scene]:
    """Random order, every combination equally often (up to one), with a seed of its own for each scene."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(combinations)) for _ in range(-(-count // len(combinations)))])[:count]
    seeds = rng.integers(0, 2**31, size=count)
    picked = [combinations[index] for index in order]
    return [
        Scene(s.shape, s.background, s.colour, s.size, s.position, int(scene_seed))
        for s, scene_seed in zip(picked, seeds, strict=True)
    ]
