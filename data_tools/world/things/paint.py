"""Draw a scene of the world of things as a 64 px RGB image: pictographs of DejaVu Sans on the small world's grounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_tools.world.paint import CANVAS_PX, COLOUR_RGB, IMAGE_SIZE_PX, jitter, paint_background
from data_tools.world.pen import INK, Colour, Pen, arc
from data_tools.world.scenes import Scene
from data_tools.world.things.words import CULTURE_THINGS, GLYPHS
from pea.errors import CorpusError, explain

_CENTRES = {"centre": 0.5, "left": 0.28, "right": 0.72}
_RADIUS = 0.28
_CULTURE_RADIUS = 0.36
_CULTURE_GLYPH = 0.72
"""Size of a culture thing's pictograph in radii of its vessel."""
_FONT_PX = 400
_TILE_PX = 128
_BOLD_PX, _OUTLINE_PX = 8, 22
"""Pictographs are drawn `_FONT_PX` high: how much their lines are thickened, and how far the ink reaches around."""
_REMEDY = "pip install 'matplotlib>=3.9'"

FILL_RGB: dict[str, Colour] = {
    "brown": (125, 75, 40),
    "golden": (235, 175, 45),
    "cream": (250, 240, 205),
    "crimson": (185, 25, 55),
    "green": (70, 150, 70),
    "grey": (135, 140, 145),
    "violet": (135, 90, 190),
    "orange": (250, 125, 30),
}


def _leaf(pen: Pen) -> None:
    pen.polygon([*arc(0, 0.75, 1.15, 1.45, 215, 325), *arc(0, -0.75, 1.15, 1.45, 35, 145)], (50, 125, 60))


VESSELS: dict[str, Callable[[Pen], None]] = {
    "bowl": lambda pen: pen.polygon(arc(0, -0.15, 1, 1.05, 0, 180), (60, 95, 190)),
    "plate": lambda pen: pen.ellipse(0, 0, 0.98, 0.98, (252, 252, 252)),
    "board": lambda pen: pen.rectangle(-1, -0.7, 1, 0.7, (190, 140, 85)),
    "basket": lambda pen: pen.polygon([(-1, -0.45), (1, -0.45), (0.65, 0.95), (-0.65, 0.95)], (205, 150, 45)),
    "cloth": lambda pen: pen.polygon([(0, -1.1), (1.1, 0), (0, 1.1), (-1.1, 0)], (240, 150, 195)),
    "cup": lambda pen: pen.rectangle(-0.58, -1, 0.58, 1, (150, 225, 235)),
    "tray": lambda pen: pen.rectangle(-1.05, -0.35, 1.05, 0.85, (45, 35, 40)),
    "box": lambda pen: pen.rectangle(-0.9, -0.9, 0.9, 0.9, (205, 60, 60)),
    "stick": lambda pen: pen.rectangle(-0.13, -1.15, 0.13, 1.15, (110, 65, 30)),
    "stone": lambda pen: pen.ellipse(0, 0.35, 1.05, 0.65, (105, 110, 125)),
    "leaf": _leaf,
}


def paint(scene: Scene) -> Image.Image:
    """The scene as a 64 px RGB image; the same scene and seed always give the same pixels."""
    rng = np.random.default_rng(scene.seed)
    image = Image.new("RGB", (CANVAS_PX, CANVAS_PX))
    draw = ImageDraw.Draw(image)
    paint_background(draw, scene.background, rng)
    radius = (_CULTURE_RADIUS if scene.is_culture else _RADIUS) * CANVAS_PX * rng.uniform(0.96, 1.04)
    x, y = (CANVAS_PX * (c + rng.uniform(-0.02, 0.02)) for c in (_CENTRES[scene.position], 0.5))
    angle = rng.uniform(-4, 4)
    if scene.is_culture:
        thing = CULTURE_THINGS[scene.shape]
        VESSELS[thing.vessel](Pen(draw, (x, y), radius, math.radians(angle)))
        _stamp(image, thing.glyph, (x, y), radius * _CULTURE_GLYPH, -angle, jitter(FILL_RGB[thing.fill], rng))
    else:
        _stamp(image, GLYPHS[scene.shape], (x, y), radius, -angle, jitter(COLOUR_RGB[str(scene.colour)], rng))
    return image.resize((IMAGE_SIZE_PX, IMAGE_SIZE_PX), Image.Resampling.BOX)


def _stamp(
    image: Image.Image, glyph: str, centre: tuple[float, float], radius: float, angle: float, colour: Colour
) -> None:
    """Paint a pictograph whose larger side is twice the radius, with an outline of ink."""
    size = round(2 * radius)
    corner = (round(centre[0] - size / 2), round(centre[1] - size / 2))
    for mask, fill in zip(_masks(glyph), (INK, colour), strict=True):
        turned = mask.rotate(angle, Image.Resampling.BILINEAR).resize((size, size), Image.Resampling.BILINEAR)
        image.paste(fill, corner, turned)


@cache
def _masks(glyph: str) -> tuple[Image.Image, Image.Image]:
    """Outline and filling of a pictograph in the middle of a square tile, 8-bit masks."""
    font = _font()
    left, top, right, bottom = font.getbbox(glyph, stroke_width=_OUTLINE_PX)
    side = math.ceil(max(right - left, bottom - top))
    place = ((side - right - left) / 2, (side - bottom - top) / 2)
    masks = []
    for stroke in (_OUTLINE_PX, _BOLD_PX):
        tile = Image.new("L", (side, side))
        ImageDraw.Draw(tile).text(place, glyph, fill=255, font=font, stroke_width=stroke, anchor="la")
        masks.append(tile.resize((_TILE_PX, _TILE_PX), Image.Resampling.BOX))
    return masks[0], masks[1]


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it, found without importing matplotlib."""
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise CorpusError(
            explain("the world of things is painted with DejaVuSans.ttf, which matplotlib brings", remedy=_REMEDY)
        )
    return ImageFont.truetype(Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf", _FONT_PX)
