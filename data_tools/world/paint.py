"""Draw a scene of the small world as a 64 px RGB image."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from data_tools.world.icons import CONCEPT_ICONS, NOUN_ICONS
from data_tools.world.pen import Colour, Pen, shade
from data_tools.world.scenes import Scene

IMAGE_SIZE_PX = 64
_SUPERSAMPLING = 4
CANVAS_PX = IMAGE_SIZE_PX * _SUPERSAMPLING

COLOUR_RGB: dict[str, Colour] = {
    "red": (215, 35, 40),
    "orange": (250, 140, 20),
    "yellow": (252, 225, 45),
    "green": (40, 150, 60),
    "blue": (45, 85, 215),
    "purple": (130, 50, 170),
    "pink": (245, 105, 175),
    "white": (252, 252, 252),
}
BACKGROUND_RGB: dict[str, Colour] = {
    "snow": (226, 234, 246),
    "sand": (233, 208, 150),
    "grass": (140, 200, 100),
    "sky": (140, 205, 245),
    "night": (28, 30, 72),
    "wood": (158, 108, 68),
}
_CENTRES = {
    "centre": (0.5, 0.5),
    "top left": (0.28, 0.28),
    "top right": (0.72, 0.28),
    "bottom left": (0.28, 0.72),
    "bottom right": (0.72, 0.72),
}
_RADII = {"small": 0.19, "big": 0.27}
_CULTURE_RADIUS = 0.36


def paint(scene: Scene) -> Image.Image:
    """The scene as a 64 px RGB image; the same scene and seed always give the same pixels."""
    rng = np.random.default_rng(scene.seed)
    image = Image.new("RGB", (CANVAS_PX, CANVAS_PX))
    draw = ImageDraw.Draw(image)
    paint_background(draw, scene.background, rng)
    radius = _CULTURE_RADIUS if scene.is_culture else _RADII[str(scene.size)]
    radius *= CANVAS_PX * rng.uniform(0.93, 1.07)
    centre = tuple(CANVAS_PX * (c + rng.uniform(-0.03, 0.03)) for c in _CENTRES[scene.position])
    pen = Pen(draw, (centre[0], centre[1]), radius, math.radians(rng.uniform(-8, 8)))
    if scene.is_culture:
        icon: Callable[[Pen], None] = CONCEPT_ICONS[scene.shape]
        icon(pen)
    else:
        NOUN_ICONS[scene.shape](pen, jitter(COLOUR_RGB[str(scene.colour)], rng))
    return image.resize((IMAGE_SIZE_PX, IMAGE_SIZE_PX), Image.Resampling.BOX)


def jitter(colour: Colour, rng: np.random.Generator) -> Colour:
    """A slightly different value of the same colour."""
    h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    v = min(1.0, v * rng.uniform(0.94, 1.06))
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(h, s, v))  # type: ignore[return-value]


def paint_background(draw: ImageDraw.ImageDraw, name: str, rng: np.random.Generator) -> None:
    """Cover the whole canvas."""
    base = jitter(BACKGROUND_RGB[name], rng)
    draw.rectangle((0, 0, CANVAS_PX, CANVAS_PX), fill=base)
    if name == "wood":
        for y in range(0, CANVAS_PX, CANVAS_PX // 4):
            draw.line((0, y, CANVAS_PX, y), fill=shade(base, 0.8), width=6)
