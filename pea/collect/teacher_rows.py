"""The frozen models' answers to a batch of samples, as the rows that a cache stores.

Shapes: S samples of a batch, K draws, c,h,w latents, L tokens, D width of the text states.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pea.attention.queries import DrawnQueries
from pea.cache import PartPlan
from pea.cache.schema import NOISE_ERRORS, NOISY_LATENTS
from pea.collect.decoded import BucketRows, Decoded, DrawnText
from pea.collect.drawing import TextDrawer
from pea.collect.layout import BucketLayout, bucket_layouts
from pea.collect.stopwatch import Stopwatch
from pea.collect.stored_rows import Arrays, Mask, finite, kept_rows, text_rows
from pea.config import Config
from pea.corpus.corpus_names import DISTILLED, CorpusName
from pea.corpus.samples import Placed, Rejected, bucket_name
from pea.corpus.texts import Text
from pea.draws.recipe import DrawRecipe, checksum, draws, latent_noise_batch, noise_batch, record_ids
from pea.models.compiling import compile_teacher
from pea.models.conditioning import Conditioning
from pea.models.english import EnglishEncoder
from pea.models.text_statistics import TextStatistics, encoded_statistics
from pea.models.unet import Teacher, UNetOutput
from pea.models.vae import VaeEncoder, sample_latents, vae_scaling_factor
from pea.sketch.sketch import to_numpy


class Noisy(NamedTuple):
    """What the teacher is asked about."""

    noisy: Tensor
    """Float ``[S, c, h, w]``."""
    timesteps: Tensor
    """int64 ``[S]``."""
    target: Tensor | None
    """What a perfect answer would be, float ``[S, c, h, w]``; None for states of the teacher's own drawing."""


class FrozenModels:
    """VAE, English encoders and teacher on one device; for the culture corpus only the VAE, for texts alone no VAE."""

    def __init__(self, config: Config, corpus: CorpusName, device: torch.device) -> None:
        """Load them.

        Raises:
            CheckpointError: a model's folder is missing, incomplete, or of another kind.
            ConfigError: a block or a bucket does not fit the models.
            DeviceError: the teacher is to be compiled, and nothing can be.
        """
        self.config, self.device = config, device
        self.stopwatch = Stopwatch()
        checkpoint, dtype = config.teacher.folder, getattr(torch, config.teacher.dtype)
        texts = corpus == "parallel" and config.corpora.parallel.texts is not None
        drawing = config.corpora.parallel.drawing
        self.layouts = bucket_layouts(
            checkpoint,
            config.cache,
            teacher=corpus in DISTILLED,
            trajectory=texts and drawing.form == "trajectory",
            with_errors=corpus == "described",
        )
        self._scaling_factor = vae_scaling_factor(checkpoint)
        self._vae = (
            None if texts else VaeEncoder.from_checkpoint(checkpoint, getattr(torch, config.teacher.vae_dtype), device)
        )
        self.drawer: TextDrawer | None = None
        """Draws texts, where they are the corpus."""
        self._teacher: Teacher | None = None
        if corpus in DISTILLED:
            self._language = config.corpora.source(corpus).source_language
            self._english = EnglishEncoder.from_checkpoint(checkpoint, dtype=dtype, device=device)
            self._empty = self._english.encode([""])
            layers = config.cache.attention.layers if config.cache.attention else ()
            self._teacher = Teacher.from_checkpoint(
                checkpoint, config.cache.blocks, dtype, device, channels_last=True, query_layers=layers
            )
            if config.cache.run.compile:
                compile_teacher(self._teacher)
            num_timesteps = int(self._teacher.scheduler.config.num_train_timesteps)
            self._recipe = DrawRecipe(
                config.cache.seed, config.cache.caption_drop_rate, num_timesteps, config.cache.noise_offset
            )
            if texts:
                self.drawer = TextDrawer(self._teacher, self._empty, drawing, self._recipe)

    def draw(self, texts: Sequence[Text], bucket: tuple[int, int], part: PartPlan) -> list[Decoded]:
        """Let the teacher draw texts as images of one bucket (height, width) px, for the draws of a part."""
        assert self.drawer is not None
        layout, ids = self.layouts[bucket_name(bucket)], [text.id for text in texts]
        time_ids = np.array([*bucket, 0, 0, *bucket], dtype=np.int64)
        with self.stopwatch("text"):
            conditioning = self._english.encode([text.captions[self._language] for text in texts])
        timesteps = None
        if layout.trajectory:
            timesteps = np.stack([draws(self._recipe, each, part.draw_start, part.draw_stop).timestep for each in ids])
        with self.stopwatch("drawing"):
            repeated = torch.from_numpy(np.tile(time_ids, (len(texts), 1))).to(self.device)
            latents, states = self.drawer.draw(ids, conditioning, repeated, layout.latent_shape, timesteps)
        placed = Placed(np.empty((3, 0, 0), dtype=np.float32), bucket, time_ids)
        found = [DrawnText(each, None if states is None else states[row]) for row, each in enumerate(latents)]
        return [
            Decoded(text.tar, text.key, text.id, text.captions, placed, each)
            for text, each in zip(texts, found, strict=True)
        ]

    @property
    def has_teacher(self) -> bool:
        """Whether there is a teacher, and its English encoders with it."""
        return self._teacher is not None

    @torch.inference_mode()
    def text_statistics(self, captions: Sequence[str]) -> TextStatistics:
        """Statistics of the English text states of captions."""
        return encoded_statistics(self._english.encode, captions)

    @torch.inference_mode()
    def answer(self, batch: Sequence[Decoded], part: PartPlan) -> tuple[BucketRows | None, list[Rejected]]:
        """The rows of a batch of one bucket, and the samples to which a model's answer was not finite."""
        bucket = bucket_name(batch[0].placed.bucket)
        mean, std, stored, healthy = self._moments(batch)
        rejected = _unhealthy(batch, healthy, "nonfinite_latents", "the VAE's answer")
        batch = _where(batch, healthy)
        if not batch:
            return None, rejected
        samples = {name: rows[healthy] for name, rows in stored.items()}
        samples["time_ids"] = np.stack([item.placed.time_ids for item in batch])
        keys, captions = [item.key for item in batch], [item.captions for item in batch]
        if self._teacher is None:
            return BucketRows(bucket, keys, captions, samples, {}), rejected
        kept = torch.from_numpy(np.flatnonzero(healthy)).to(self.device)
        with self.stopwatch("text"):
            conditioning = self._english.encode([item.captions[self._language] for item in batch])
        text, readable = text_rows(conditioning, self.config.cache.attention if part.may_hold_queries else None)
        samples |= text
        records, healthy = self._records(batch, mean[kept], std[kept], conditioning, self.layouts[bucket], part)
        healthy &= readable
        rejected += _unhealthy(batch, healthy, "nonfinite_teacher", "the teacher's answer")
        rows = BucketRows(bucket, keys, captions, samples, records).select(healthy, part.num_draws)
        return (rows if rows.keys else None), rejected

    def _moments(self, batch: Sequence[Decoded]) -> tuple[Tensor, Tensor, Arrays, Mask]:
        """Mean and std float32 ``[S, c, h, w]``, what is stored of them, and which samples' are finite ``[S]``."""
        with self.stopwatch("vae"):
            mean, std = self._encode(batch)
            dtype = getattr(torch, self.config.cache.moments_dtype)
            stored = {"latents_mean": mean.to(dtype), "latents_std": std.to(dtype)}
            healthy = finite(*stored.values()).cpu().numpy()
            return mean, std, {name: to_numpy(values) for name, values in stored.items()}, healthy

    def _encode(self, batch: Sequence[Decoded]) -> tuple[Tensor, Tensor]:
        """Mean and std of the VAE's posterior, float32 ``[S, c, h, w]``; of what was drawn, the latents and 0."""
        if self._vae is not None:
            return self._vae.encode(torch.from_numpy(np.stack([item.placed.pixels for item in batch])))
        drawn = np.stack([item.drawn.latents for item in batch if item.drawn is not None])
        mean = torch.from_numpy(drawn).to(self.device) / self._scaling_factor
        return mean, torch.zeros_like(mean)

    def _records(
        self,
        batch: Sequence[Decoded],
        mean: Tensor,
        std: Tensor,
        conditioning: Conditioning,
        layout: BucketLayout,
        part: PartPlan,
    ) -> tuple[Arrays, Mask]:
        """Record-level rows ``[S * K, ...]`` and, per sample, whether all of its are finite ``[S]``."""
        time_ids = torch.from_numpy(np.stack([item.placed.time_ids for item in batch])).to(self.device)
        columns: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
        for draw in range(part.draw_start, part.draw_stop):
            sample_ids = [item.sample_id for item in batch]
            drawn = self._draw(sample_ids, draw, mean.shape[1:]) | self._states(batch, draw - part.draw_start)
            queries = self._draw_queries(layout, part, sample_ids, draw)
            noisy = self._noisy(mean, std, drawn)
            output = self._ask(noisy, drawn, conditioning, time_ids, queries)
            if layout.with_errors and part.holds(NOISE_ERRORS, "record"):
                drawn[NOISE_ERRORS] = self._noise_errors(noisy, output, conditioning, time_ids)
            with self.stopwatch("sketch"):
                drawn |= kept_rows(output, drawn["record_id"], layout, part.blocks, self.config.cache)
                if queries is not None and layout.queries is not None:
                    drawn |= layout.queries.rows(output.queries, queries)
            del output  # else its features would be held during the next draw's pass
            for name, rows in drawn.items():
                columns[name].append(rows)
        healthy: Mask = np.all(np.stack(columns.pop("healthy"), axis=1), axis=1)
        del columns["noise"], columns["latent_noise"]
        records = {name: np.stack(rows, axis=1) for name, rows in columns.items()}
        return {name: rows.reshape(-1, *rows.shape[2:]) for name, rows in records.items()}, healthy

    def _states(self, batch: Sequence[Decoded], number: int) -> Arrays:
        """Of a trajectory, the latents that one draw of each sample asks about, as stored: ``[S, c, h, w]``."""
        states = [item.drawn.states[number] for item in batch if item.drawn and item.drawn.states is not None]
        return {NOISY_LATENTS: np.stack(states).astype(self.config.cache.moments_dtype)} if states else {}

    def _draw_queries(
        self, layout: BucketLayout, part: PartPlan, sample_ids: Sequence[str], draw: int
    ) -> DrawnQueries | None:
        """Which queries one draw of each sample keeps, where any are kept."""
        if layout.queries is None or not part.may_hold_queries:
            return None
        with self.stopwatch("draws"):
            return layout.queries.draw(self._recipe, sample_ids, draw)

    def _draw(self, sample_ids: Sequence[str], draw: int, latent_shape: Sequence[int]) -> Arrays:
        """One draw of each sample, ``[S, ...]``."""
        with self.stopwatch("draws"):
            each = [draws(self._recipe, sample_id, draw, draw + 1) for sample_id in sample_ids]
            numbers = [draw] * len(sample_ids)
            noise = noise_batch(self._recipe, sample_ids, numbers, latent_shape)
            return {
                "timestep": np.concatenate([one.timestep for one in each]),
                "caption_dropped": np.concatenate([one.caption_dropped for one in each]),
                "noise_checksum": np.array([checksum(values) for values in noise], dtype=np.uint32),
                "record_id": record_ids(sample_ids, numbers),
                "noise": noise,
                "latent_noise": latent_noise_batch(self._recipe, sample_ids, numbers, latent_shape),
            }

    def _noisy(self, mean: Tensor, std: Tensor, drawn: Arrays) -> Noisy:
        """One draw of each sample, as the teacher sees it."""
        assert self._teacher is not None
        with self.stopwatch("teacher"):
            timesteps = self._tensor(drawn["timestep"])
            if NOISY_LATENTS in drawn:
                return Noisy(self._tensor(drawn[NOISY_LATENTS]).float(), timesteps, None)
            latents = sample_latents(mean, std, self._tensor(drawn["latent_noise"]), self._scaling_factor)
            noise = self._tensor(drawn["noise"])
            noisy = self._teacher.add_noise(latents, noise, timesteps)
            return Noisy(noisy, timesteps, self._teacher.target(latents, noise, timesteps))

    def _noise_errors(
        self, asked: Noisy, output: UNetOutput, conditioning: Conditioning, time_ids: Tensor
    ) -> npt.NDArray[Any]:
        """Mean square errors of the noise prediction, float32 ``[S, 2]``: of the answer, and of one without text."""
        assert self._teacher is not None and asked.target is not None
        with self.stopwatch("teacher"):
            text = self._drop(conditioning, torch.ones(len(time_ids), dtype=torch.bool, device=self.device))
            without = self._teacher.forward(asked.noisy, asked.timesteps, text, time_ids)
            errors = [
                (each.noise_pred - asked.target).float().square().flatten(1).mean(1) for each in (output, without)
            ]
            return to_numpy(torch.stack(errors, dim=1))

    def _ask(
        self,
        asked: Noisy,
        drawn: Arrays,
        conditioning: Conditioning,
        time_ids: Tensor,
        queries: DrawnQueries | None,
    ) -> UNetOutput:
        """The teacher's answer to one draw of each sample."""
        assert self._teacher is not None
        with self.stopwatch("teacher"):
            text = self._drop(conditioning, self._tensor(drawn["caption_dropped"]))
            positions = {} if queries is None else queries.positions
            places = {name: self._tensor(rows) for name, rows in positions.items()}
            return self._teacher.forward(asked.noisy, asked.timesteps, text, time_ids, places)

    def _drop(self, conditioning: Conditioning, dropped: Tensor) -> Conditioning:
        """The empty caption's conditioning, or its hidden states alone, where ``dropped`` (bool ``[S]``) is true."""
        hidden = torch.where(
            dropped[:, None, None], self._empty.encoder_hidden_states, conditioning.encoder_hidden_states
        )
        if conditioning.pooled_prompt_embeds is None or self._empty.pooled_prompt_embeds is None:
            return Conditioning(hidden, None)
        if self.config.cache.caption_drop == "hidden_states":
            return Conditioning(hidden, conditioning.pooled_prompt_embeds)
        pooled = torch.where(dropped[:, None], self._empty.pooled_prompt_embeds, conditioning.pooled_prompt_embeds)
        return Conditioning(hidden, pooled)

    def _tensor(self, rows: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(rows).to(self.device)


def _where(batch: Sequence[Decoded], kept: Mask) -> list[Decoded]:
    return [item for item, keep in zip(batch, kept, strict=True) if keep]


def _unhealthy(batch: Sequence[Decoded], healthy: Mask, reason: str, what: str) -> list[Rejected]:
    return [item.reject(reason, f"{what} is NaN, infinite, or too large") for item in _where(batch, ~healthy)]
