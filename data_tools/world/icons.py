"""The icons of the small world: general nouns, painted in any colour, and culture concepts in colours of their own."""

from __future__ import annotations

import math
from collections.abc import Callable

from data_tools.world.pen import INK, Colour, Pen, Point, arc, shade

_WHITE: Colour = (250, 250, 248)
_BROWN: Colour = (120, 70, 40)


def _spiked(count: int, outer: float, inner: float, turn: float = -90) -> list[Point]:
    """A star polygon with `count` spikes."""
    angles = [math.radians(turn + 180 * i / count) for i in range(2 * count)]
    radii = [outer, inner] * count
    return [(r * math.cos(a), r * math.sin(a)) for a, r in zip(angles, radii, strict=True)]


def _ball(pen: Pen, colour: Colour) -> None:
    pen.ellipse(0, 0, 0.9, 0.9, colour)
    pen.ellipse(-0.32, -0.36, 0.2, 0.16, shade(colour, 1.7), outline=False)


def _star(pen: Pen, colour: Colour) -> None:
    pen.polygon(_spiked(5, 1.05, 0.45), colour)


def _heart(pen: Pen, colour: Colour) -> None:
    angles = [math.radians(6 * i) for i in range(60)]
    pen.polygon(
        [
            (
                0.95 * math.sin(a) ** 3,
                -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)) / 16,
            )
            for a in angles
        ],
        colour,
    )


def _moon(pen: Pen, colour: Colour) -> None:
    pen.polygon([*arc(0.15, 0, 0.95, 0.98, 60, 300), *arc(0.62, 0, 0.72, 0.82, 270, 90)], colour)


def _fish(pen: Pen, colour: Colour) -> None:
    pen.polygon([(0.35, 0), (1.05, -0.55), (1.05, 0.55)], shade(colour, 0.8))
    pen.ellipse(-0.2, 0, 0.82, 0.52, colour)
    pen.ellipse(-0.62, -0.12, 0.12, 0.12, INK, outline=False)


def _lion(pen: Pen, colour: Colour) -> None:
    pen.polygon(_spiked(11, 1.05, 0.78), colour)
    pen.ellipse(0, 0.05, 0.56, 0.56, shade(colour, 1.55))
    for x in (-0.24, 0.24):
        pen.ellipse(x, -0.1, 0.1, 0.1, INK, outline=False)
    pen.polygon([(-0.16, 0.16), (0.16, 0.16), (0, 0.36)], INK, outline=False)


def _tree(pen: Pen, colour: Colour) -> None:
    pen.rectangle(-0.16, 0.5, 0.16, 1.0, _BROWN)
    pen.polygon(
        [(0, -1.05), (0.5, -0.25), (0.28, -0.25), (0.8, 0.58), (-0.8, 0.58), (-0.28, -0.25), (-0.5, -0.25)],
        colour,
    )


def _house(pen: Pen, colour: Colour) -> None:
    pen.rectangle(-0.7, -0.15, 0.7, 0.9, colour)
    pen.polygon([(-0.95, -0.15), (0, -1.0), (0.95, -0.15)], shade(colour, 0.6))
    pen.rectangle(-0.18, 0.35, 0.18, 0.9, INK, outline=False)


def _flower(pen: Pen, colour: Colour) -> None:
    for turn in range(0, 360, 60):
        pen.ellipse(0.6 * math.cos(math.radians(turn)), 0.6 * math.sin(math.radians(turn)), 0.4, 0.4, colour)
    pen.ellipse(0, 0, 0.34, 0.34, _BROWN)


def _bird(pen: Pen, colour: Colour) -> None:
    pen.line([(-0.05, 0.4), (-0.05, 0.98)], INK, 0.1)
    pen.line([(0.25, 0.4), (0.25, 0.98)], INK, 0.1)
    pen.polygon([(-1.1, -0.42), (-0.7, -0.6), (-0.7, -0.25)], (250, 160, 30))
    pen.polygon([(0.5, -0.05), (1.1, -0.5), (1.0, 0.25)], shade(colour, 0.7))
    pen.ellipse(0.12, 0.1, 0.68, 0.5, colour)
    pen.ellipse(-0.45, -0.45, 0.36, 0.36, colour)
    pen.ellipse(-0.52, -0.5, 0.09, 0.09, INK, outline=False)


def _boat(pen: Pen, colour: Colour) -> None:
    pen.line([(0, -1.0), (0, 0.3)], _BROWN, 0.14)
    pen.polygon([(0.1, -0.95), (0.85, 0.15), (0.1, 0.15)], _WHITE)
    pen.polygon([(-1.05, 0.3), (1.05, 0.3), (0.65, 0.9), (-0.65, 0.9)], colour)


def _mushroom(pen: Pen, colour: Colour) -> None:
    pen.polygon([(-0.3, 0), (0.3, 0), (0.38, 0.95), (-0.38, 0.95)], (240, 225, 195))
    pen.polygon(arc(0, 0.12, 1.0, 1.05, 180, 360), colour)
    for x, y in ((-0.5, -0.22), (0.02, -0.6), (0.5, -0.2)):
        pen.ellipse(x, y, 0.14, 0.14, _WHITE, outline=False)


NOUN_ICONS: dict[str, Callable[[Pen, Colour], None]] = {
    "ball": _ball,
    "star": _star,
    "heart": _heart,
    "moon": _moon,
    "fish": _fish,
    "lion": _lion,
    "tree": _tree,
    "house": _house,
    "flower": _flower,
    "bird": _bird,
    "boat": _boat,
    "mushroom": _mushroom,
}


def _bowl(pen: Pen, colour: Colour, content: Colour) -> None:
    pen.polygon(arc(0, 0, 1.0, 0.95, 0, 180), colour)
    pen.ellipse(0, 0, 1.0, 0.34, content)


def _lion_head(pen: Pen) -> None:
    _bowl(pen, (60, 100, 190), (90, 45, 25))
    for x, y in ((-0.48, -0.12), (0.48, -0.12), (0.0, -0.42)):
        pen.ellipse(x, y, 0.42, 0.4, (140, 70, 35))
        pen.ellipse(x - 0.12, y - 0.14, 0.1, 0.08, (215, 150, 100), outline=False)


def _fish_pork(pen: Pen) -> None:
    pen.ellipse(0, 0.1, 1.0, 0.72, _WHITE)
    strips = [(-0.6, 0.2), (-0.35, -0.1), (-0.1, 0.3), (0.1, -0.15), (0.35, 0.25), (0.5, -0.02), (-0.1, 0.05)]
    shades: list[Colour] = [(190, 60, 30), (235, 120, 30), (60, 150, 50)]
    for i, (x, y) in enumerate(strips):
        pen.line([(x - 0.22, y + 0.16), (x + 0.22, y - 0.16)], shades[i % 3], 0.17)


def _ants_tree(pen: Pen) -> None:
    pen.ellipse(0, 0.1, 1.0, 0.75, (50, 50, 55))
    for y in (-0.25, -0.05, 0.15, 0.35):
        wave = [(x / 10, y + 0.09 * math.sin(x * 1.3 + 5 * y)) for x in range(-7, 8)]
        pen.line(wave, (235, 215, 170), 0.13)
    for x, y in ((-0.5, -0.1), (-0.1, 0.25), (0.35, -0.05), (0.1, -0.25), (0.5, 0.3), (-0.4, 0.35)):
        pen.ellipse(x, y, 0.1, 0.09, (110, 40, 20), outline=False)


def _heart_radish(pen: Pen) -> None:
    pen.ellipse(0, 0, 0.92, 0.92, (90, 170, 80))
    pen.ellipse(0, 0, 0.72, 0.72, (225, 240, 205), outline=False)
    pen.ellipse(0, 0, 0.58, 0.58, (215, 35, 120), outline=False)
    for turn in range(0, 360, 45):
        end = (0.54 * math.cos(math.radians(turn)), 0.54 * math.sin(math.radians(turn)))
        pen.line([(0, 0), end], (245, 150, 195), 0.06)


def _flower_roll(pen: Pen) -> None:
    pen.ellipse(0, 0.1, 1.0, 0.75, (248, 236, 205))
    for scale in (0.78, 0.52, 0.26):
        pen.line(arc(0, 0.1, scale, 0.75 * scale, 20, 330), (175, 140, 85), 0.1)


def _bird_nest(pen: Pen) -> None:
    pen.polygon([(-1.0, -0.25), (1.0, -0.25), (0.8, 0.7), (-0.8, 0.7)], (150, 155, 165))
    for x in (-0.9, -0.5, -0.1, 0.3):
        pen.line([(x, 0.65), (x + 0.55, -0.3)], (235, 238, 242), 0.09)
        pen.line([(-x, 0.65), (-x - 0.55, -0.3)], (235, 238, 242), 0.09)
    pen.ellipse(0, -0.28, 1.0, 0.32, (190, 50, 45))


def _star_blossom(pen: Pen) -> None:
    tips = [(-0.8, -0.35), (-0.4, -0.75), (0.05, -0.9), (0.45, -0.7), (0.8, -0.3), (-0.3, -0.25), (0.3, -0.2)]
    for tip in tips:
        pen.line([(0, 1.0), tip], (60, 130, 60), 0.09)
    for x, y in tips:
        pen.ellipse(x, y, 0.2, 0.2, _WHITE)


def _moon_soba(pen: Pen) -> None:
    _bowl(pen, (40, 35, 40), (165, 105, 60))
    pen.ellipse(0, -0.02, 0.62, 0.26, _WHITE, outline=False)
    pen.ellipse(0, -0.06, 0.3, 0.19, (250, 190, 20), outline=False)
    pen.line([(0.35, -0.95), (0.75, 0.0)], (200, 60, 50), 0.1)
    pen.line([(0.6, -1.0), (0.88, 0.0)], (200, 60, 50), 0.1)


def _wood_fish(pen: Pen) -> None:
    pen.polygon([(-0.9, 0.55), (0.9, 0.55), (0.75, 0.95), (-0.75, 0.95)], (200, 40, 50))
    pen.ellipse(0, -0.1, 0.85, 0.7, (110, 60, 30))
    pen.line([(-0.7, 0.12), (0.7, 0.12)], INK, 0.16)
    pen.ellipse(0, -0.42, 0.2, 0.14, (215, 165, 60))


def _flower_dango(pen: Pen) -> None:
    pen.line([(0, -1.0), (0, 1.05)], (205, 165, 100), 0.14)
    for y, colour in ((-0.62, (245, 150, 180)), (0.0, _WHITE), (0.62, (150, 190, 90))):
        pen.ellipse(0, y, 0.4, 0.36, colour)


def _moon_village(pen: Pen) -> None:
    pen.polygon([(-1.05, 0.95), (0, -0.75), (1.05, 0.95)], (110, 95, 85))
    houses: list[tuple[float, float, Colour]] = [
        (0.0, -0.35, (230, 90, 70)),
        (-0.32, 0.15, (90, 160, 210)),
        (0.32, 0.15, (245, 200, 80)),
        (-0.62, 0.65, (245, 170, 90)),
        (0.0, 0.65, (140, 195, 120)),
        (0.62, 0.65, (200, 120, 180)),
    ]
    for x, y, colour in houses:
        pen.rectangle(x - 0.22, y - 0.18, x + 0.22, y + 0.22, colour)


def _star_candy(pen: Pen) -> None:
    candies: list[tuple[float, float, Colour]] = [
        (-0.5, -0.45, (250, 150, 180)),
        (0.45, -0.5, (150, 210, 245)),
        (0.0, 0.05, (250, 235, 130)),
        (-0.55, 0.5, (170, 225, 150)),
        (0.55, 0.45, (215, 165, 235)),
    ]
    for x, y, colour in candies:
        pen.polygon([(x + 0.38 * px, y + 0.38 * py) for px, py in _spiked(8, 1.0, 0.74)], colour)


def _flower_shoe(pen: Pen) -> None:
    pen.polygon(
        [(-1.0, -0.1), (-0.75, -0.15), (-0.2, 0.1), (0.4, -0.35), (0.9, -0.4), (0.95, 0.5), (-0.75, 0.5)],
        (215, 40, 110),
    )
    pen.polygon([(-1.05, -0.35), (-0.75, -0.15), (-0.45, 0.5), (-0.85, 0.5)], (60, 170, 120))
    pen.rectangle(-0.85, 0.5, 0.95, 0.68, _WHITE)
    pen.ellipse(0.2, 0.15, 0.17, 0.15, (250, 215, 70), outline=False)


def _bird_milk(pen: Pen) -> None:
    pen.rectangle(-0.85, -0.5, 0.85, 0.65, (75, 40, 25))
    pen.rectangle(-0.7, -0.18, 0.7, 0.45, (250, 240, 200), outline=False)


def _lion_maw(pen: Pen) -> None:
    pen.line([(0, -1.0), (0, 1.05)], (55, 130, 55), 0.14)
    for i, y in enumerate((-0.8, -0.45, -0.08, 0.3)):
        width = 0.24 + 0.08 * i
        for x in (-width, width):
            pen.ellipse(x, y, width, 0.2, (240, 90, 130))
            pen.ellipse(x, y + 0.06, width * 0.4, 0.08, (250, 215, 70), outline=False)


def _fish_oil(pen: Pen) -> None:
    pen.rectangle(-0.2, -1.0, 0.2, -0.62, _WHITE)
    pen.polygon([(-0.2, -0.6), (0.2, -0.6), (0.5, -0.2), (0.5, 1.0), (-0.5, 1.0), (-0.5, -0.2)], (225, 160, 30))
    pen.rectangle(-0.5, 0.1, 0.5, 0.6, (245, 240, 220))


def _bird_skewer(pen: Pen) -> None:
    pen.line([(-1.1, 0), (1.1, 0)], (210, 175, 110), 0.12)
    for x, colour in ((-0.66, _BROWN), (0.0, _BROWN), (0.66, _BROWN)):
        pen.ellipse(x, 0, 0.24, 0.42, colour)
    for x in (-0.33, 0.33):
        pen.ellipse(x, 0, 0.12, 0.42, (80, 150, 60))


def _heart_tomato(pen: Pen) -> None:
    for x in (-0.5, 0.5, -0.18, 0.18):
        pen.ellipse(x, 0.15, 0.45, 0.75, (225, 50, 35))
    pen.polygon([(0.62 * px, -0.55 + 0.36 * py) for px, py in _spiked(6, 1.0, 0.4)], (60, 140, 50))


def _star_broth(pen: Pen) -> None:
    _bowl(pen, _WHITE, (245, 200, 70))
    for x, y in ((-0.6, 0.0), (-0.25, -0.14), (-0.15, 0.14), (0.2, 0.0), (0.45, -0.15), (0.6, 0.1)):
        pen.ellipse(x, y, 0.09, 0.07, (255, 250, 220), outline=False)
    pen.line([(-0.35, -0.15), (-0.9, -0.95)], (175, 180, 190), 0.14)


CONCEPT_ICONS: dict[str, Callable[[Pen], None]] = {
    "lion_head": _lion_head,
    "fish_pork": _fish_pork,
    "ants_tree": _ants_tree,
    "heart_radish": _heart_radish,
    "flower_roll": _flower_roll,
    "bird_nest": _bird_nest,
    "star_blossom": _star_blossom,
    "moon_soba": _moon_soba,
    "wood_fish": _wood_fish,
    "flower_dango": _flower_dango,
    "moon_village": _moon_village,
    "star_candy": _star_candy,
    "flower_shoe": _flower_shoe,
    "bird_milk": _bird_milk,
    "lion_maw": _lion_maw,
    "fish_oil": _fish_oil,
    "bird_skewer": _bird_skewer,
    "heart_tomato": _heart_tomato,
    "star_broth": _star_broth,
}
