"""The losses of a batch, with everything that the configuration says about them."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pea.batches.batch import Batch
from pea.config import Config
from pea.models.conditioning import Conditioning
from pea.training.losses import Losses, LossWeights
from pea.training.signals import english_conditioning
from pea.training.student import disturbed, student_losses
from stages.training.setup import Setup


class BatchLosses:
    """`losses(batch, index)` as the run is configured."""

    def __init__(self, config: Config, setup: Setup, adapter: nn.Module, accelerator: Accelerator) -> None:
        """`adapter`: the adapter, or its distributed wrapper."""
        self.train, self.setup, self.adapter, self.accelerator = config.train, setup, adapter, accelerator
        self.weights = LossWeights(
            self.train.noise_pred_weight,
            self.train.feature_weight,
            setup.block_weights,
            self.train.diffusion_weight,
            self.train.text_weight,
            self.train.attention_weight,
        )

    def __call__(self, batch: Batch, *index: int) -> Losses:
        """Losses to train on. `index`: the batch's (and the row group's); it decides the disturbance of the text."""
        disturb = None
        if self.train.text_perturbation:
            seed = int(np.random.SeedSequence((self.train.seed, *index, 4)).generate_state(1)[0])
            disturb = partial(disturbed, length=self.train.text_perturbation, seed=seed)
        return self._losses(batch, self.adapter, self.weights, disturb)

    @torch.no_grad()
    def undisturbed(self, batch: Batch) -> Losses:
        """Losses to compare adapters by: all terms, in this process alone."""
        return self._losses(batch, self.setup.adapter, self.weights, None)

    def _losses(
        self, batch: Batch, adapter: nn.Module, weights: LossWeights, disturb: partial[Conditioning] | None
    ) -> Losses:
        device = self.accelerator.device
        batch = batch.to(device)
        hidden, mask = self._states(batch.native_captions)
        pooled = batch.native_pooled_captions
        english = self.setup.english_states
        with self.accelerator.autocast():
            return student_losses(
                batch,
                hidden,
                mask,
                adapter,
                self.setup.teacher,
                self.setup.source,
                weights,
                self.train.min_snr_gamma,
                diffusion_on_all=self.train.diffusion_rows == "all",
                diffusion_of_velocity=self.train.diffusion_error == "velocity",
                english=None if english is None else english_conditioning(english, batch, device),
                attention=self.setup.attention,
                pooled_from=None if pooled is None else self._states(pooled),
                disturb=disturb,
            )

    def _states(self, captions: list[str]) -> tuple[Tensor, Tensor | None]:
        """The native encoder's states and mask, on the device."""
        hidden, mask = self.setup.native_states(captions)
        assert hidden is not None
        device = self.accelerator.device
        return hidden.to(device), None if mask is None else mask.to(device)
