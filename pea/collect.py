"""One tar -> one finished shard: decode, encode, ask the teacher, sketch, write; the three kinds of work overlap.

What happens to a tar is decided here, where it happens (which process, machine, device) by `stages.cache_teacher`.
Batches are formed from the tar's samples in order, so a shard's bytes depend on nothing but the tar and the identity
of the cache.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from pea.cache import ArraySpec, Cache, PartPlan, ShardSchema, ShardWriter
from pea.cache.schema import base_arrays, feature_arrays
from pea.config import Config
from pea.draws import DrawRecipe, checksum, draws, latent_noise_batch, noise_batch, record_ids
from pea.encoders import Conditioning, EnglishEncoder, VaeEncoder, sample_latents
from pea.samples import Placed, Rejected, Sample, bucket_name, place_in_bucket, read_tar
from pea.sketch import Sketch, make_sketch, to_numpy
from pea.teacher import Teacher, block_shapes

_QUEUE_SIZE = 64
_END = None


@dataclass
class TarSummary:
    """What became of one tar."""

    tar: str
    num_samples: int = 0
    num_records: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason -> number of samples."""
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Decoded:
    """A sample that is ready for the VAE."""

    key: str
    sample_id: str
    captions: dict[str, str]
    placed: Placed


@dataclass(frozen=True)
class Rows:
    """Samples of one bucket with all their records, on the host, ready to be written."""

    bucket: str
    keys: list[str]
    captions: list[dict[str, str]]
    samples: dict[str, np.ndarray]
    records: dict[str, np.ndarray]


class Collector:
    """Holds the frozen models on their device and turns tars into shards.

    `corpus` is `parallel` (everything) or `culture` (captions and VAE moments only: no teacher is loaded).
    """

    def __init__(self, config: Config, corpus: str, device: torch.device) -> None:
        self._config = config
        self._corpus = config.corpora.parallel if corpus == "parallel" else config.corpora.culture
        self._device = device
        dtype = getattr(torch, config.teacher.dtype)
        checkpoint = config.teacher.checkpoint
        self._vae = VaeEncoder.from_checkpoint(checkpoint, dtype=dtype, device=device)
        self._teacher: Teacher | None = None
        if corpus == "parallel":
            self._english = EnglishEncoder.from_checkpoint(checkpoint, dtype=dtype, device=device)
            self._teacher = Teacher.from_checkpoint(checkpoint, config.cache.blocks, dtype=dtype, device=device)
            self._empty = self._english.encode([""])
            self._recipe = DrawRecipe(
                config.cache.seed,
                config.cache.caption_drop_rate,
                int(self._teacher.scheduler.config.num_train_timesteps),
            )
            self._sketches: dict[str, dict[str, Sketch]] = {}

    def collect(
        self,
        cache: Cache,
        part: PartPlan,
        tar: Path,
        *,
        skip: Collection[str] = (),
        in_flight: Callable[[str], object] = str,
    ) -> Iterator[int | TarSummary]:
        """Write the shard of one tar: yields the number of samples done after each batch, then the summary.

        `skip`: keys that are rejected unread, because they killed a worker before. `in_flight` is told each key
        before it is decoded.

        Raises:
            CorpusError: the tar cannot be read to its end.
            DiskFullError: the shard cannot be written; nothing half-written looks finished.
        """
        started = time.monotonic()
        summary = TarSummary(part.tar)
        dropped: Counter[str] = Counter()
        with (
            ShardWriter(cache, part.tar, part.part, self._schema(part)) as writer,
            _Background() as background,
        ):
            decoded = background.iterate(self._decode(tar, skip, in_flight))
            results = self._run_models(decoded, part)
            for item in background.consume(results, lambda item: self._write(writer, item, dropped)):
                if isinstance(item, Rows):
                    summary.num_samples += len(item.keys)
                    summary.num_records += len(item.keys) * part.num_draws
                    yield len(item.keys)
            record = writer.finish()
        summary.dropped = dict(dropped)
        summary.bytes = record.num_bytes
        summary.seconds = time.monotonic() - started
        yield summary

    def _schema(self, part: PartPlan) -> ShardSchema:
        buckets = {}
        for height, width in self._config.cache.buckets:
            shape = self._latent_shape(height, width)
            arrays = list(self._base_arrays(shape))
            for block, sketch in self._sketches_for(bucket_name((height, width)), shape).items():
                arrays += feature_arrays(block, sketch.arrays, self._config.cache.sketch_for(block).model_dump())
            buckets[bucket_name((height, width))] = tuple(arrays)
        return ShardSchema(draws_per_sample=part.num_draws, languages=(), buckets=buckets, draw_start=part.draw_start)

    def _latent_shape(self, height_px: int, width_px: int) -> tuple[int, int, int]:
        vae = self._vae.vae.config
        factor = 2 ** (len(vae.block_out_channels) - 1)
        return vae.latent_channels, height_px // factor, width_px // factor

    def _base_arrays(self, latent_shape: tuple[int, int, int]) -> tuple[ArraySpec, ...]:
        cache = self._config.cache
        return base_arrays(latent_shape, cache.moments_dtype, cache.noise_pred_dtype if self._teacher else None)

    def _sketches_for(self, bucket: str, latent_shape: tuple[int, int, int]) -> dict[str, Sketch]:
        if self._teacher is None:
            return {}
        if bucket not in self._sketches:
            cache = self._config.cache
            self._sketches[bucket] = {
                block: make_sketch(cache.sketch_for(block), cache.seed, block, shape)
                for block, shape in self._block_shapes(latent_shape).items()
            }
        return self._sketches[bucket]

    def _block_shapes(self, latent_shape: tuple[int, int, int]) -> dict[str, tuple[int, int, int]]:
        assert self._teacher is not None
        return block_shapes(self._teacher.unet.config, latent_shape[1:], self._config.cache.blocks)

    def _decode(
        self, tar: Path, skip: Collection[str], in_flight: Callable[[str], object]
    ) -> Iterator[Decoded | Rejected]:
        assert self._corpus is not None
        cache = self._config.cache
        samples = read_tar(
            tar,
            self._corpus.caption_fields(),
            required=(self._corpus.source_language,),
            max_image_pixels=cache.max_image_pixels,
            max_aspect_ratio=cache.max_aspect_ratio,
            skip=skip,
            in_flight=in_flight,
        )
        for sample in samples:
            if isinstance(sample, Sample):
                placed = place_in_bucket(sample.image, cache.buckets)
                yield Decoded(sample.key, sample.id, sample.captions, placed)
            else:
                yield sample

    def _run_models(self, decoded: Iterator[Decoded | Rejected], part: PartPlan) -> Iterator[Rows | Rejected]:
        """Group samples by bucket, in order, into batches of whole samples; rejected ones pass through."""
        samples_per_batch = max(1, self._config.cache.run.batch_size // max(1, part.num_draws))
        waiting: dict[tuple[int, int], list[Decoded]] = defaultdict(list)
        for item in decoded:
            if isinstance(item, Rejected):
                yield item
                continue
            batch = waiting[item.placed.bucket]
            batch.append(item)
            if len(batch) == samples_per_batch:
                yield from self._run_batch(batch, part)
                batch.clear()
        for batch in waiting.values():
            if batch:
                yield from self._run_batch(batch, part)

    @torch.inference_mode()
    def _run_batch(self, batch: list[Decoded], part: PartPlan) -> Iterator[Rows | Rejected]:
        pixels = torch.from_numpy(np.stack([item.placed.pixels for item in batch])).to(self._device)
        mean, std = self._vae.encode(pixels)
        healthy = (torch.isfinite(mean) & torch.isfinite(std)).flatten(1).all(1).cpu().numpy()
        yield from _reject(part.tar, batch, healthy, "nonfinite_latents", "the VAE gave NaN or infinity")
        batch, mean, std = _keep(batch, mean, std, healthy)
        if not batch:
            return
        bucket = bucket_name(batch[0].placed.bucket)
        samples = {
            "latents_mean": mean.float().cpu().numpy(),
            "latents_std": std.float().cpu().numpy(),
            "time_ids": np.stack([item.placed.time_ids for item in batch]),
        }
        records: dict[str, np.ndarray] = {}
        if self._teacher is not None:
            records = self._ask_teacher(batch, mean, std, part)
            healthy = records.pop("healthy")
            yield from _reject(part.tar, batch, healthy, "nonfinite_teacher", "the UNet gave NaN or infinity")
            samples = {name: rows[healthy] for name, rows in samples.items()}
            records = {name: rows[healthy.repeat(part.num_draws)] for name, rows in records.items()}
            batch = [item for item, good in zip(batch, healthy, strict=True) if good]
        if batch:
            captions = [item.captions for item in batch]
            yield Rows(bucket, [item.key for item in batch], captions, samples, records)

    def _ask_teacher(
        self, batch: list[Decoded], mean: torch.Tensor, std: torch.Tensor, part: PartPlan
    ) -> dict[str, np.ndarray]:
        """Every record in (sample, draw) order, and `healthy` `[samples]`: whether all of a sample's are finite."""
        assert self._teacher is not None and self._corpus is not None
        ids = [item.sample_id for item in batch]
        drawn = [draws(self._recipe, sample_id, part.draw_start, part.draw_stop) for sample_id in ids]
        draw_numbers = np.tile(np.arange(part.draw_start, part.draw_stop), len(ids))
        owners = [sample_id for sample_id in ids for _ in range(part.num_draws)]
        shape = tuple(mean.shape[1:])
        noise = noise_batch(self._recipe, owners, draw_numbers, shape)
        latent_noise = latent_noise_batch(self._recipe, owners, draw_numbers, shape)
        rows: dict[str, Any] = {
            "timestep": np.concatenate([d.timestep for d in drawn]),
            "caption_dropped": np.concatenate([d.caption_dropped for d in drawn]),
            "noise_checksum": np.array([checksum(row) for row in noise], dtype=np.uint32),
            "record_id": record_ids(owners, draw_numbers),
        }
        conditioning = self._english.encode([item.captions[self._corpus.source_language] for item in batch])
        sample_rows = np.repeat(np.arange(len(ids)), part.num_draws)
        time_ids = torch.from_numpy(np.stack([item.placed.time_ids for item in batch])).to(self._device)
        pieces: dict[str, list[np.ndarray]] = defaultdict(list)
        size = self._config.cache.run.batch_size
        for start in range(0, len(sample_rows), size):
            chosen = slice(start, start + size)
            picked = torch.from_numpy(sample_rows[chosen]).to(self._device)
            latents = sample_latents(
                mean[picked].float(),
                std[picked].float(),
                self._to_device(latent_noise[chosen]),
                self._vae.scaling_factor,
            )
            timesteps = self._to_device(rows["timestep"][chosen])
            output = self._teacher.forward(
                self._teacher.add_noise(latents, self._to_device(noise[chosen]), timesteps),
                timesteps,
                self._condition(conditioning, picked, rows["caption_dropped"][chosen]),
                time_ids[picked],
            )
            pieces["noise_pred"].append(
                to_numpy(output.noise_pred.to(getattr(torch, self._config.cache.noise_pred_dtype)))
            )
            sketches = self._sketches_for(bucket_name(batch[0].placed.bucket), (shape[0], shape[1], shape[2]))
            for block, feature in output.features.items():
                for suffix, values in sketches[block].encode(feature, rows["record_id"][chosen]).items():
                    pieces[f"features/{block}/{suffix}"].append(to_numpy(values))
            pieces["healthy"].append(_finite(output.noise_pred, *output.features.values()).cpu().numpy())
        rows |= {name: np.concatenate(parts) for name, parts in pieces.items()}
        rows["healthy"] = rows["healthy"].reshape(len(ids), part.num_draws).all(1)
        return rows

    def _condition(self, conditioning: Conditioning, picked: torch.Tensor, dropped: np.ndarray) -> Conditioning:
        """The captions' conditioning by record, with the empty caption's where the draw dropped it."""
        empty = torch.from_numpy(dropped).to(self._device)
        hidden = torch.where(
            empty[:, None, None],
            self._empty.encoder_hidden_states,
            conditioning.encoder_hidden_states[picked],
        )
        if conditioning.pooled_prompt_embeds is None or self._empty.pooled_prompt_embeds is None:
            return Conditioning(hidden, None)
        pooled = torch.where(
            empty[:, None], self._empty.pooled_prompt_embeds, conditioning.pooled_prompt_embeds[picked]
        )
        return Conditioning(hidden, pooled)

    def _to_device(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(rows).to(self._device)

    @staticmethod
    def _write(writer: ShardWriter, item: Rows | Rejected, dropped: Counter[str]) -> None:
        if isinstance(item, Rejected):
            dropped[item.reason] += 1
            writer.reject(item.key, item.reason, item.detail)
        else:
            writer.append(
                item.bucket,
                keys=item.keys,
                captions=item.captions,
                samples=item.samples,
                records=item.records,
            )


def _finite(*tensors: torch.Tensor) -> torch.Tensor:
    """Whether all values of each row are finite, `[B]`."""
    return torch.stack([torch.isfinite(tensor).flatten(1).all(1) for tensor in tensors]).all(0)


def _reject(tar: str, batch: list[Decoded], healthy: np.ndarray, reason: str, detail: str) -> Iterator[Rejected]:
    for item, good in zip(batch, healthy, strict=True):
        if not good:
            yield Rejected(tar, item.key, reason, detail)


def _keep(
    batch: list[Decoded], mean: torch.Tensor, std: torch.Tensor, healthy: np.ndarray
) -> tuple[list[Decoded], torch.Tensor, torch.Tensor]:
    rows = torch.from_numpy(np.flatnonzero(healthy)).to(mean.device)
    return [item for item, good in zip(batch, healthy, strict=True) if good], mean[rows], std[rows]


class _Background:
    """Threads beside the one that runs the models, with bounded queues between; an error in any of them stops all."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def iterate(self, items: Iterator[Any]) -> Iterator[Any]:
        """The items, made ahead of time in a thread of their own."""
        ready: queue.Queue[Any] = queue.Queue(_QUEUE_SIZE)

        def produce() -> None:
            try:
                for item in items:
                    self._put(ready, item)
                self._put(ready, _END)
            except BaseException as error:  # noqa: BLE001 - handed over to the thread that reads
                self._put(ready, error)

        self._start(produce)
        while (item := ready.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item

    def consume(self, items: Iterator[Any], use: Callable[[Any], None]) -> Iterator[Any]:
        """Pass the items on, and `use` each in a thread of its own; ends when all have been used."""
        waiting: queue.Queue[Any] = queue.Queue(4)
        failures: list[BaseException] = []

        def work() -> None:
            try:
                while (item := self._get(waiting)) is not _END:
                    use(item)
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)
                self._stop.set()

        thread = self._start(work)
        for item in items:
            self._put(waiting, item)
            if failures:
                break
            yield item
        self._put(waiting, _END)
        thread.join()
        if failures:
            raise failures[0]

    def _start(self, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    def _put(self, target: queue.Queue[Any], item: Any) -> None:
        while not self._stop.is_set():
            try:
                target.put(item, timeout=0.2)
            except queue.Full:
                continue
            return

    def _get(self, source: queue.Queue[Any]) -> Any:
        while not self._stop.is_set():
            try:
                return source.get(timeout=0.2)
            except queue.Empty:
                continue
        return _END
