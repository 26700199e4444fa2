"""How many rows of each batch a source gives, so that its share holds over the run.

A share that is rounded in every batch is another share, or nothing: a quarter of two rows. Here the rounding of one
batch is made up for by the next: of a bucket's first n batches of B rows, ``floor(n * B * share)`` rows are culture
rows. That follows from n alone, so it is the same for a resumed run, and for several processes or accumulated batches,
which go through the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor


@dataclass(frozen=True)
class BucketShare:
    """What a bucket's batches are made of."""

    batch_size: int
    culture: Fraction
    """Share of its rows that are culture rows, from 0 to 1."""
    batches_per_epoch: int

    def before(self, number: int) -> tuple[int, int]:
        """Parallel and culture rows of its first ``number`` batches."""
        culture = floor(number * self.batch_size * self.culture)
        return number * self.batch_size - culture, culture

    @property
    def rows_of_epoch(self) -> tuple[float, float]:
        """Parallel and culture rows of an epoch's batches, the mean over epochs."""
        rows = self.batches_per_epoch * self.batch_size
        return float(rows * (1 - self.culture)), float(rows * self.culture)


def bucket_shares(
    parallel: Mapping[str, int], culture: Mapping[str, int], batch_size: int, culture_fraction: float
) -> dict[str, BucketShare]:
    """Bucket -> what its batches are made of; ``parallel``, ``culture``: bucket -> rows that there are.

    Together, the batches have ``culture_fraction`` of culture rows, and of each source every row comes as often as any
    other, also where culture images are of other shapes than parallel ones. An epoch has every parallel record once,
    but for those that do not fill a batch; of a bucket that has culture rows alone it has whole batches, at least one.
    """
    fraction = Fraction(str(culture_fraction)) if culture else Fraction(0)
    if fraction == 1:
        return {name: BucketShare(batch_size, fraction, max(1, rows // batch_size)) for name, rows in culture.items()}
    num_parallel, num_culture = sum(parallel.values()), sum(culture.values())
    rows_per_parallel = 1 / (1 - fraction)
    shares = {}
    for name in sorted({*parallel, *(culture if fraction else ())}):
        first = Fraction(parallel.get(name, 0))
        second = fraction * rows_per_parallel * num_parallel * culture.get(name, 0) / num_culture if fraction else 0
        rows = first + second
        shares[name] = BucketShare(batch_size, second / rows, max(1, floor(rows / batch_size)))
    return shares
