"""A world as one value: what there is in it, its words and its painter. Corpora and trainings take it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image

from data_tools.world import paint as small_paint
from data_tools.world.languages import LANGUAGES, Language
from data_tools.world.scenes import SMALL, Scene, Vocabulary


@dataclass(frozen=True)
class World:
    """Everything that tells one world from another."""

    vocabulary: Vocabulary
    languages: Mapping[str, Language]
    """Language code -> its words; English among them."""
    paint: Callable[[Scene], Image.Image]
    """A scene as a square RGB image of `image_size_px`."""
    image_size_px: int = small_paint.IMAGE_SIZE_PX


SMALL_WORLD = World(SMALL, LANGUAGES, small_paint.paint)
