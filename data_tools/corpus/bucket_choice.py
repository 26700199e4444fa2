"""Which aspect-ratio buckets fit the images that are there: little is cut off, and few shapes are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pea.corpus.images import choose_bucket

Size = tuple[int, int]
"""(H, W) in px."""
_LEAST_GAIN = 0.002
_MAX_ASPECT = 4.0


@dataclass(frozen=True)
class BucketShare:
    """What falls into one bucket."""

    bucket: Size
    num_images: int
    lost: float
    """Mean share of an image that is cut off."""
    enlarged: int
    """Images that are smaller than the bucket."""


def candidate_buckets(area_px: int, multiple: int) -> list[Size]:
    """Every bucket of about an area, with sides that are multiples of ``multiple`` px."""
    found = dict[Size, None]()
    width = multiple
    while width * multiple <= area_px:
        height = round(area_px / width / multiple) * multiple
        if height and max(height, width) <= _MAX_ASPECT * min(height, width):
            found[height, width] = None
        width += multiple
    return list(found)


def lost_share(size: Size, bucket: Size) -> float:
    """Share of an image that is cut off when it is brought to a bucket: what ``place_in_bucket`` does."""
    one, other = size[1] * bucket[0], size[0] * bucket[1]
    return 1 - min(one, other) / max(one, other)


def propose_buckets(sizes: Mapping[Size, int], area_px: int, multiple: int, most: int) -> list[Size]:
    """At most so many buckets, each next one that which saves the most; none that saves next to nothing.

    ``sizes``: (H, W) of the images -> how many there are.
    """
    shapes = Counter[float]()
    for (height, width), count in sizes.items():
        shapes[round(width / height, 3)] += count
    candidates, chosen = candidate_buckets(area_px, multiple), list[Size]()
    total = max(1, shapes.total())
    lost = dict.fromkeys(shapes, 1.0)
    while candidates and len(chosen) < most:
        best = min(
            candidates, key=lambda bucket: sum(min(lost[s], _lost(s, bucket)) * count for s, count in shapes.items())
        )
        after = {shape: min(lost[shape], _lost(shape, best)) for shape in shapes}
        gain = sum((lost[shape] - after[shape]) * count for shape, count in shapes.items()) / total
        if gain < _LEAST_GAIN:
            break
        chosen.append(best)
        lost = after
    return sorted(chosen, key=lambda bucket: bucket[1] / bucket[0])


def _lost(shape: float, bucket: Size) -> float:
    own = bucket[1] / bucket[0]
    return 1 - min(shape, own) / max(shape, own)


def shares(sizes: Mapping[Size, int], buckets: Sequence[Size]) -> list[BucketShare]:
    """What falls into each of some buckets."""
    counts, lost, enlarged = Counter[Size](), Counter[Size](), Counter[Size]()
    for size, count in sizes.items():
        bucket = choose_bucket(*size, buckets)
        counts[bucket] += count
        lost[bucket] += count * lost_share(size, bucket)  # type: ignore[assignment]
        if size[0] < bucket[0] or size[1] < bucket[1]:
            enlarged[bucket] += count
    return [BucketShare(each, counts[each], lost[each] / max(1, counts[each]), enlarged[each]) for each in buckets]
