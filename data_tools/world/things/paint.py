"""Draw a scene of the world of things as a 32 px RGB image: pictographs of DejaVu Sans on plain grounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_tools.world.paint import BACKGROUND_RGB, COLOUR_RGB, jitter
from data_tools.world.pen import INK, Colour, Pen, arc
from data_tools.world.scenes import Scene
from data_tools.world.things.words import CULTURE_THINGS, GLYPHS
from pea.errors import CorpusError, explain

IMAGE_SIZE_PX = 32
_CANVAS_PX = 4 * IMAGE_SIZE_PX
_CENTRES = {"centre": 0.5, "left": 0.375, "right": 0.625}
_RADIUS = 0.36
_CULTURE_RADIUS = 0.42
_CULTURE_GLYPH = 0.72
"""Size of a culture thing's pictograph in radii of its vessel."""
_FONT_PX = 400
_TILE_PX = 128
_BOLD_PX, _OUTLINE_PX = 12, 38
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
    """The scene as a 32 px RGB image; the same scene and seed always give the same pixels."""
    rng = np.random.default_rng(scene.seed)
    image = Image.new("RGB", (_CANVAS_PX, _CANVAS_PX), jitter(BACKGROUND_RGB[scene.background], rng))
    radius = (_CULTURE_RADIUS if scene.is_culture else _RADIUS) * _CANVAS_PX * rng.uniform(0.98, 1.02)
    x, y = (_CANVAS_PX * (c + rng.uniform(-0.01, 0.01)) for c in (_CENTRES[scene.position], 0.5))
    if scene.is_culture:
        thing = CULTURE_THINGS[scene.shape]
        VESSELS[thing.vessel](Pen(ImageDraw.Draw(image), (x, y), radius, 0))
        _stamp(image, thing.glyph, (x, y), radius * _CULTURE_GLYPH, jitter(FILL_RGB[thing.fill], rng))
    else:
        _stamp(image, GLYPHS[scene.shape], (x, y), radius, jitter(COLOUR_RGB[str(scene.colour)], rng))
    return image.resize((IMAGE_SIZE_PX, IMAGE_SIZE_PX), Image.Resampling.BOX)


def _stamp(image: Image.Image, glyph: str, centre: tuple[float, float], radius: float, colour: Colour) -> None:
    """Paint a pictograph whose larger side is twice the radius, with an outline of ink."""
    size = round(2 * radius)
    corner = (round(centre[0] - size / 2), round(centre[1] - size / 2))
    for mask, fill in zip(_masks(glyph, size), (INK, colour), strict=True):
        image.paste(fill, corner, mask)


@cache
def _masks(glyph: str, size_px: int) -> tuple[Image.Image, Image.Image]:
    """Outline and filling of a pictograph in the middle of a square tile, 8-bit masks."""
    outline, filling = _large_masks(glyph)
    size = (size_px, size_px)
    return outline.resize(size, Image.Resampling.BILINEAR), filling.resize(size, Image.Resampling.BILINEAR)


@cache
def _large_masks(glyph: str) -> tuple[Image.Image, Image.Image]:
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
