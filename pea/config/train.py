"""How the adapter is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from pea.config.section import Fraction, Section


class TrainConfig(Section):
    """How the adapter is trained."""

    steps: PositiveInt = 10_000
    """Optimizer steps, `text_steps` included."""
    text_steps: NonNegativeInt = 0
    """First steps, which only pull the text states towards the English ones: no UNet pass, the full learning rate."""
    batch_size: PositiveInt = 32
    """Records per optimizer step and process, parallel and culture together."""
    culture_fraction: Fraction = 0.25
    """Share of a batch that comes from the culture corpus, where there is one."""
    learning_rate: PositiveFloat = 1e-4
    """Peak learning rate of AdamW."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of AdamW."""
    adam_beta2: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.999
    """Decay per step of AdamW's mean square of the gradient. In a run of a few hundred steps, 0.999 remembers the large
    gradients of its beginning to the end; 0.98 forgets them."""
    warmup_steps: NonNegativeInt = 100
    """Steps over which the learning rate rises linearly."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Learning rate after the warmup."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""
    noise_pred_weight: NonNegativeFloat = 1.0
    """Weight of the distillation loss on the noise prediction (the paper's lambda_L)."""
    feature_weight: NonNegativeFloat = 0.1
    """Weight of the distillation loss on the features (the paper's lambda_FL)."""
    block_weights: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Block -> factor on its share of the feature loss; 1 where absent, and 0 leaves the block out."""
    feature_scale: Literal["raw", "relative"] = "raw"
    """``relative`` divides a block's feature error by the mean square of the teacher's features there, so that a block
    of large values drowns neither the others nor the other losses; ``raw`` is the paper's sum."""
    diffusion_weight: NonNegativeFloat = 1.0
    """Weight of the ordinary diffusion loss."""
    text_weight: NonNegativeFloat = 0.0
    """Weight of the distance between the adapter's text states and the teacher's English ones (text-encoder
    distillation); 0 needs no English encoder."""
    diffusion_rows: Literal["culture", "all"] = "culture"
    """Rows with the diffusion loss: those of the culture corpus (hybrid training), or all."""
    attention_steps: NonNegativeInt = 0
    """Steps of the warm start on cached attention queries, before the first UNet step."""
    attention_batch_size: PositiveInt = 256
    """Records per step of the warm start."""
    attention_learning_rate: PositiveFloat = 1e-3
    """Peak learning rate of the warm start."""
    targets: Literal["cached", "live"] = "cached"
    """Where the teacher's answers come from: the cache, or the teacher itself at every step."""
    min_snr_gamma: PositiveFloat | None = None
    """Weight records by min-SNR with this gamma; null weights all alike."""
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Publish an exponential moving average of the adapter with this decay per step; null: the last weights."""
    max_skipped_steps: PositiveInt = 10
    """Consecutive steps without a finite loss after which the run stops; fewer are skipped and counted."""
    resume: Literal["auto", "never", "must"] = "auto"
    """Go on from the newest saved state of the same run: if there is one, never, or fail if there is none."""
    seed: NonNegativeInt = 0
    """Seed of the adapter's initial weights and of the order of the records."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision."""
    device: str = "auto"
    """``auto`` or ``cpu``."""
    gradient_accumulation_steps: PositiveInt = 1
    """Batches per optimizer step."""
    gradient_checkpointing: bool = False
    """Recompute UNet activations in the backward pass to save memory."""
    save_every_steps: PositiveInt = 1_000
    """Steps between two saved states that a stopped run resumes from."""
    keep_states: PositiveInt = 2
    """Saved states that are kept."""
    log_every_steps: PositiveInt = 10
    """Steps between two rows of the training log."""
    num_workers: NonNegativeInt = 0
    """Batches that a thread reads ahead of the trainer; 0 reads them between the steps."""
