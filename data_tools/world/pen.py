"""A pen that draws filled shapes in a unit square, wherever the square lies on the canvas."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

INK: Colour = (35, 25, 30)


class Pen:
    """Draws in a unit square around an icon's centre.

    x and y are in [-1, 1], y downwards; the square is rotated and scaled as a whole.
    """

    def __init__(self, draw: ImageDraw.ImageDraw, centre: Point, radius: float, angle: float) -> None:
        self._draw = draw
        self._centre = centre
        self._radius = radius
        self._cos, self._sin = math.cos(angle), math.sin(angle)
        self.outline_px = max(3, round(radius * 0.09))

    def _place(self, point: Point) -> Point:
        x, y = point[0] * self._radius, point[1] * self._radius
        return self._centre[0] + x * self._cos - y * self._sin, self._centre[1] + x * self._sin + y * self._cos

    def polygon(self, points: Sequence[Point], fill: Colour, *, outline: bool = True) -> None:
        """A filled polygon, outlined in ink unless told otherwise."""
        placed = [self._place(point) for point in points]
        self._draw.polygon(placed, fill=fill)
        if outline:
            self._draw.line([*placed, placed[0], placed[1]], fill=INK, width=self.outline_px, joint="curve")

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour, *, outline: bool = True) -> None:
        """A filled ellipse around (x, y)."""
        self.polygon(arc(x, y, rx, ry, 0, 360), fill, outline=outline)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, *, outline: bool = True) -> None:
        """A filled rectangle between two corners."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill, outline=outline)

    def line(self, points: Sequence[Point], fill: Colour, width: float) -> None:
        """An open line, its width in units of the square."""
        placed = [self._place(point) for point in points]
        self._draw.line(placed, fill=fill, width=max(1, round(width * self._radius)), joint="curve")


def arc(x: float, y: float, rx: float, ry: float, start: float, stop: float) -> list[Point]:
    """Points of an elliptic arc, angles in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, stop, 40))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def shade(colour: Colour, factor: float) -> Colour:
    """Darker below 1, lighter (towards white) above."""
    if factor <= 1:
        return tuple(round(c * factor) for c in colour)  # type: ignore[return-value]
    return tuple(round(c + (255 - c) * (factor - 1)) for c in colour)  # type: ignore[return-value]
