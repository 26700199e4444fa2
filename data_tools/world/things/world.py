"""The world of things, as corpora and trainings take it."""

from __future__ import annotations

from data_tools.world.things.paint import IMAGE_SIZE_PX, paint
from data_tools.world.things.words import LANGUAGES, VOCABULARY
from data_tools.world.worlds import World

THINGS = World(VOCABULARY, LANGUAGES, paint, IMAGE_SIZE_PX)
