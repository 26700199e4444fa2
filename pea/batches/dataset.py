"""Cache rows to training batches, as a pure function of the batch's index: to resume is to ask for the next one.

A batch has P parallel records and C culture samples of one latent shape; P and C differ by one from batch to batch
where a share is no whole number of rows. Within an epoch, batches of different shapes come in random order; the culture
samples of a shape go round on their own, with draw e on their e-th round.

Shapes: c,h,w latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pea.attention.queries import AttentionTargets
from pea.batches.attention_rows import attention_arrays, stored_english, stored_queries, time_ids
from pea.batches.batch import Batch
from pea.batches.captions import Captions
from pea.batches.opening import open_rows
from pea.batches.row_order import Schedule, shuffled_turns
from pea.batches.rows import CacheRows, Row, language_of, stack
from pea.batches.selection import Selection
from pea.batches.shares import bucket_shares
from pea.cache import Cache
from pea.cache.schema import NOISE_PRED, NOISY_LATENTS
from pea.draws.recipe import DrawRecipe, checksum, draws, latent_noise_batch, noise_batch
from pea.errors import ConfigError, ShardDamagedError
from pea.models.conditioning import Conditioning
from pea.sketch.sketch import from_numpy


@dataclass(frozen=True)
class BatchPlan:
    """How many rows are in a batch, and of which kinds."""

    batch_size: int
    culture_fraction: float
    """Share of the rows that are culture rows, where there is a culture corpus; see `pea.batches.shares`."""
    seed: int
    culture_draws: int | None = None
    """Draws that a culture sample goes round on; None: a new one every time."""
    culture_timesteps: tuple[int, int] | None = None
    """Culture rows draw their timesteps from `first <= t < end`; None: from all."""


class TrainingData:
    """Batches from a parallel cache and, optionally, a culture cache."""

    def __init__(
        self,
        parallel: Cache,
        culture: Cache | None,
        plan: BatchPlan,
        recipe: DrawRecipe,
        scaling_factor: float,
        blocks: Sequence[str],
        native_languages: Sequence[str],
        english_language: str = "en",
        *,
        window_bytes: int = 512 << 20,
        keep_pooled: bool = False,
        selection: Selection | None = None,
        empty: Conditioning | None = None,
        alphas_cumprod: Tensor | None = None,
    ) -> None:
        """Args as named; `blocks` are the features to read, `recipe` and `scaling_factor` the cache's.

        Rows without a caption in a native language are left out; of several, every row of every batch draws one that it
        has. `keep_pooled`: a dropped caption stays in the
        pooled embedding. `selection`: the rows to read. `empty`: the English encoder's answer to the empty caption, one
        row; with it, queries and English text states are read as well. `alphas_cumprod`: of the teacher's schedule,
        which a cache of trajectories needs.

        Raises:
            CacheError: a cache has no rows, no captions in the student's languages, or none of the queries asked for.
            ConfigError: culture rows are to draw timesteps that there are not.
        """
        _check_timesteps(plan.culture_timesteps, recipe.num_train_timesteps)
        self.plan, self.recipe, self.scaling_factor, self.blocks = plan, recipe, scaling_factor, tuple(blocks)
        self.native_languages, self.english_language = tuple(native_languages), english_language
        self.keep_pooled, self.empty, self._alphas = keep_pooled, empty, alphas_cumprod
        captioned = replace(selection or Selection(), languages=self.native_languages)
        languages = (*native_languages, english_language)
        beside = [] if empty is None else attention_arrays(parallel)
        self.parallel = open_rows(
            parallel, self.blocks, languages, plan.seed, window_bytes, selection=captioned, beside=beside
        )
        self.culture: dict[str, CacheRows] = {}
        self._caches = [parallel]
        if culture is not None and plan.culture_fraction:
            self._caches.append(culture)
            self.culture = open_rows(culture, None, self.native_languages, plan.seed, window_bytes, selection=captioned)
        self._shares = bucket_shares(
            {name: len(rows) for name, rows in self.parallel.items()},
            {name: len(rows) for name, rows in self.culture.items()},
            plan.batch_size,
            plan.culture_fraction,
        )
        self.batches_per_epoch = sum(share.batches_per_epoch for share in self._shares.values())
        self._schedule = lru_cache(maxsize=2)(self._make_schedule)

    @property
    def num_records(self) -> int:
        """Parallel records."""
        return sum(len(rows) for rows in self.parallel.values())

    @property
    def rows_of_epoch(self) -> dict[str, tuple[float, float]]:
        """Bucket -> parallel and culture rows of its batches in an epoch."""
        return {bucket: share.rows_of_epoch for bucket, share in self._shares.items()}

    @property
    def num_culture_samples(self) -> int:
        """Culture samples."""
        return sum(len(rows) for rows in self.culture.values())

    @property
    def fingerprint(self) -> dict[str, str]:
        """What a run's fingerprint says of the shares; nothing where they are what older versions made of them."""
        whole = Fraction(str(self.plan.culture_fraction)) if self.culture else Fraction(0)
        older = {self._shares[name].culture for name in self.culture if name in self._shares} <= {whole}
        older = older and self._shares.keys() <= (self.culture if whole == 1 else self.parallel).keys()
        rows = whole * self.plan.batch_size
        return {} if older and rows.denominator == 1 else {"culture_rows": "a share of the run"}

    def captions(self, *languages: str) -> Captions:
        """Every caption of the caches in these languages, whichever rows are read."""
        return Captions(self._caches, languages)

    def batch(self, index: int) -> Batch:
        """Batch `index` of the run; any index, in any order.

        Raises:
            ShardDamagedError: a row's noise is not the one that its key gives.
        """
        bucket, epoch, number = self._place(index)
        share = self._shares[bucket]
        skipped, _ = share.before(epoch * share.batches_per_epoch)
        (first, taken), (stop, end) = share.before(number), share.before(number + 1)
        rows = self.parallel[bucket].read(epoch, first - skipped, stop - skipped) if stop > first else []
        return self._collate(index, bucket, rows, self._culture_rows(bucket, taken, end))

    def num_rows(self, index: int) -> tuple[int, int]:
        """Parallel and culture rows of batch `index`, without reading them."""
        bucket, _, number = self._place(index)
        before, after = (self._shares[bucket].before(each) for each in (number, number + 1))
        return after[0] - before[0], after[1] - before[1]

    def _place(self, index: int) -> tuple[str, int, int]:
        """Bucket of batch `index`, its epoch, and the how-manieth of all batches of that bucket it is."""
        epoch, position = divmod(index, self.batches_per_epoch)
        bucket, turn = self._schedule(epoch).at(position)
        return bucket, epoch, epoch * self._shares[bucket].batches_per_epoch + turn

    def _make_schedule(self, epoch: int) -> Schedule:
        """Bucket of each batch of an epoch, and the how-manieth of that bucket it is."""
        names = sorted(self._shares)
        counts = [self._shares[bucket].batches_per_epoch for bucket in names]
        generator = np.random.default_rng((self.plan.seed, epoch, 2))
        return shuffled_turns(names, counts, generator)

    def _culture_rows(self, bucket: str, taken: int, end: int) -> list[Row]:
        """Samples `taken..end` of the bucket's own endless round, each with its round as draw."""
        rows: list[Row] = []
        while taken + len(rows) < end:
            lap, start = divmod(taken + len(rows), len(self.culture[bucket]))
            stop = min(start + end - taken - len(rows), len(self.culture[bucket]))
            draw = lap if self.plan.culture_draws is None else lap % self.plan.culture_draws
            rows += [row._replace(draw=draw) for row in self.culture[bucket].read(lap, start, stop)]
        return rows

    def _collate(self, index: int, bucket: str, parallel: list[Row], culture: list[Row]) -> Batch:
        rows = parallel + culture
        ids, numbers = [row.sample_id for row in rows], [row.draw for row in rows]
        mean, std = _stack(rows, "latents_mean").float(), _stack(rows, "latents_std").float()
        shape = tuple(mean.shape[1:])
        noise = noise_batch(self.recipe, ids, numbers, shape)
        _check_noise(parallel, noise)
        fresh = [draws(self.recipe, row.sample_id, row.draw, row.draw + 1) for row in culture]
        dropped = [bool(row.arrays["caption_dropped"]) for row in parallel]
        dropped += [bool(draw.caption_dropped[0]) for draw in fresh]
        timesteps = [int(row.arrays["timestep"]) for row in parallel]
        timesteps += [self._culture_timestep(int(draw.timestep[0])) for draw in fresh]
        latent_noise = torch.from_numpy(latent_noise_batch(self.recipe, ids, numbers, shape))
        native = [row.captions[self._language(row, index)] for row in rows]
        english = [row.captions[self.english_language] for row in parallel]
        latents, added = (mean + std * latent_noise) * self.scaling_factor, torch.from_numpy(noise)
        if parallel and NOISY_LATENTS in parallel[0].arrays:
            added = self._noise_of_states(parallel, latents, added, timesteps)
        whole = bool(parallel) and NOISE_PRED in parallel[0].arrays
        return Batch(
            bucket=bucket,
            names=[f"{name}#{number}" for name, number in zip(ids, numbers, strict=True)],
            latents=latents,
            noise=added,
            timesteps=torch.tensor(timesteps, dtype=torch.int64),
            time_ids=time_ids(rows),
            native_captions=["" if drop else text for drop, text in zip(dropped, native, strict=True)],
            english_captions=["" if drop else text for drop, text in zip(dropped, english, strict=False)],
            native_pooled_captions=native if self.keep_pooled else None,
            english_pooled_captions=english if self.keep_pooled else None,
            noise_pred=_stack(parallel, NOISE_PRED) if whole else torch.zeros(0, *shape),
            noise_pred_sketch={
                name.removeprefix(f"{NOISE_PRED}/"): _stack(parallel, name)
                for name in (parallel[0].arrays if parallel else ())
                if name.startswith(f"{NOISE_PRED}/")
            },
            features=self._features(parallel),
            record_ids=np.array([row.arrays["record_id"] for row in parallel], dtype=np.uint64),
            attention=self._attention(bucket, parallel),
        )

    def _noise_of_states(self, parallel: list[Row], latents: Tensor, noise: Tensor, timesteps: list[int]) -> Tensor:
        """The noise that makes of the parallel rows' latents the states that the teacher was asked about."""
        assert self._alphas is not None
        count = len(parallel)
        alpha = self._alphas[torch.tensor(timesteps[:count])][:, None, None, None]
        states = _stack(parallel, NOISY_LATENTS).float()
        return torch.cat([(states - alpha.sqrt() * latents[:count]) / (1 - alpha).sqrt(), noise[count:]])

    def _culture_timestep(self, drawn: int) -> int:
        """A drawn timestep, moved into the range that is wanted: still stratified over a sample's draws."""
        first, end = self.plan.culture_timesteps or (0, self.recipe.num_train_timesteps)
        return first + drawn * (end - first) // self.recipe.num_train_timesteps

    def _attention(self, bucket: str, rows: list[Row]) -> AttentionTargets | None:
        if self.empty is None or not rows:
            return None
        english = stored_english(rows, self.empty, keep_pooled=self.keep_pooled)
        specs = self.parallel[bucket].pieces[0].bucket.arrays
        return AttentionTargets(stored_queries(rows, specs), english, time_ids(rows))

    def _language(self, row: Row, index: int) -> str:
        """The language in which the student reads a row of batch `index`."""
        return language_of(row, self.native_languages, self.plan.seed, index)

    def _features(self, parallel: list[Row]) -> dict[str, dict[str, Tensor]]:
        features: dict[str, dict[str, Tensor]] = {block: {} for block in self.blocks}
        for name in parallel[0].arrays if parallel else ():
            if name.startswith("features/"):
                _, block, suffix = name.split("/")
                features[block][suffix] = _stack(parallel, name)
        return features


def prefetch(fetch: Callable[[int], Batch], indices: Iterable[int], num_ahead: int) -> Iterator[Batch]:
    """`fetch(index)` for each index in turn, `num_ahead` of them under way in a background thread; 0: none."""
    if num_ahead == 0:
        yield from map(fetch, indices)
        return
    remaining = iter(indices)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="pea-batches") as pool:
        pending: list[Future[Batch]] = [pool.submit(fetch, index) for index in islice(remaining, num_ahead)]
        try:
            while pending:
                batch = pending.pop(0).result()
                pending += [pool.submit(fetch, index) for index in islice(remaining, 1)]
                yield batch
        finally:
            for future in pending:
                future.cancel()


def _stack(rows: Sequence[Row], name: str) -> Tensor:
    tensor: Tensor = from_numpy(stack(rows, name))
    return tensor


def _check_timesteps(wanted: tuple[int, int] | None, num_train_timesteps: int) -> None:
    if wanted is not None and wanted[1] > num_train_timesteps:
        raise ConfigError(
            "the teacher has no such timesteps",
            where="train.culture_timesteps",
            expected=f"[first, end] up to {num_train_timesteps}",
            got=list(wanted),
        )


def _check_noise(parallel: Sequence[Row], noise: npt.NDArray[np.float32]) -> None:
    for row, values in zip(parallel, noise, strict=False):
        expected, got = int(row.arrays["noise_checksum"]), checksum(values)
        if expected != got:
            raise ShardDamagedError(
                "the noise of this record is not the one that the teacher saw",
                where=f"{row.sample_id}#{row.draw}",
                expected=f"checksum {expected:08x}",
                got=f"{got:08x}",
            )
