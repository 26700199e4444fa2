"""A part of a table -> samples whose images the teacher has drawn, in groups that follow from the table alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator

from pea.cache import PartPlan
from pea.collect.decoded import Decoded
from pea.collect.drawing import DRAWN_TOGETHER
from pea.collect.teacher_rows import FrozenModels
from pea.config import CacheConfig
from pea.corpus.samples import Rejected
from pea.corpus.tars import TarIdentity
from pea.corpus.texts import Text, TextPart, read_text_part
from pea.draws.recipe import DrawRecipe, drawn_choice


def drawn_samples(
    models: FrozenModels,
    cache: CacheConfig,
    texts: TextPart,
    part: PartPlan,
    *,
    skip: Collection[str] = (),
    in_flight: Callable[[str], object] = str,
    careful: bool = False,
    expect: TarIdentity | None = None,
    wanted: Collection[str] | None = None,
) -> Iterator[Decoded | Rejected]:
    """Every row of a part, drawn or left out. ``wanted``: groups in which none of these keys is are not drawn.

    ``careful``: each text is first drawn alone, so that ``in_flight`` knows which one ends the process.

    Raises:
        CorpusError: the table cannot be read, or the part is not what is expected.
    """

    def draw(group: list[Text], bucket: tuple[int, int]) -> list[Decoded]:
        if wanted is not None and not any(text.key in wanted for text in group):
            return []
        for text in group if careful else ():
            in_flight(text.key)
            models.draw([text], bucket, part)
        in_flight("")
        return models.draw(group, bucket, part)

    waiting: dict[tuple[int, int], list[Text]] = defaultdict(list)
    for text in read_text_part(texts, skip=skip, in_flight=in_flight, expect=expect):
        if isinstance(text, Rejected):
            yield text
            continue
        bucket = drawn_bucket(cache, text.id)
        waiting[bucket].append(text)
        if len(waiting[bucket]) == DRAWN_TOGETHER:
            yield from draw(waiting.pop(bucket), bucket)
    for bucket, group in waiting.items():
        yield from draw(group, bucket)


def drawn_bucket(cache: CacheConfig, sample_id: str) -> tuple[int, int]:
    """The size (height, width) in px that a text is drawn in."""
    return cache.buckets[drawn_choice(DrawRecipe(cache.seed, 0.0, 1), sample_id, len(cache.buckets))]
