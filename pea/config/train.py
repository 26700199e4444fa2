"""How the adapter is trained."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pea.config.phases import PhaseConfig, PhaseKind
from pea.config.placeholders import SetupPath
from pea.config.section import Fraction, Section, Timesteps
from pea.storage.local_copies import DEFAULT_BYTES


class Phase(NamedTuple):
    """One phase of a run with everything it leaves out filled in."""

    kind: PhaseKind
    train: TrainConfig
    """Its settings; ``phases`` is empty."""


class TrainConfig(Section):
    """How the adapter is trained."""

    method: Literal["adapter", "lora", "kv"] = "adapter"
    """What is trained: the adapter alone; with LoRA on the UNet's attention; with the K and V matrices of its
    cross-attention."""
    lora_rank: PositiveInt = 16
    """Rank of the LoRA matrices."""
    phases: tuple[PhaseConfig, ...] = (PhaseConfig(kind="text"), PhaseConfig(kind="unet"))
    """What the run consists of, in order. Where the cache keeps queries (`cache.attention`) and nothing is set here, a
    phase of kind ``attention`` comes before the UNet. Empty: one phase of kind ``unet``, as in the paper. Without a
    phase of that kind, the adapter is published as the last one leaves it."""
    steps: PositiveInt | None = None
    """Optimizer steps of a phase. Null: by a rule, as many as take 800 records for every root of a parallel sample."""
    max_minutes: PositiveFloat | None = None
    """End after this time in the loops of all phases, resumed parts included; the adapter is published as it is."""
    batch_size: PositiveInt = 32
    """Records per batch and process, parallel and culture together."""
    culture_fraction: Fraction = 0.25
    """Share of a phase's rows that comes from the culture corpus, where there is one, whatever the batch size."""
    min_captioned_fraction: Fraction = 0.0
    """A run fails before its first step where a smaller share of a corpus' samples has a caption in one of the
    student's languages. Those without are left out and counted."""
    culture_draws: PositiveInt | None = None
    """Draws (timestep, noise, caption drop) that a culture sample goes round on; null: a new one every time."""
    timesteps: Timesteps | None = None
    """Phases of kind ``attention`` and ``unet`` read parallel records of these timesteps only, ``[first, end]``; null:
    all."""
    culture_timesteps: Timesteps | None = None
    """Culture rows draw these timesteps only, ``[first, end]``; null: all."""
    min_description_gain: Annotated[float, Field(lt=1.0)] | None = 0.0
    """Described culture images are distilled only where the description lowers the teacher's own noise error by this
    share at least, as the cache records it; null: all are."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate of AdamW. Null: by a rule, 2e-3 at 64 records a step and an adapter of width 512; it grows
    with the root of the records a step, up to 256, and falls with the width."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of AdamW."""
    adam_beta2: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.999
    """Decay per step of AdamW's mean square of the gradient. In a run of a few hundred steps, 0.999 remembers the large
    gradients of its beginning to the end; 0.98 forgets them."""
    warmup_steps: NonNegativeInt = 100
    """Steps over which the learning rate rises linearly."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Learning rate after the warmup."""
    max_grad_norm: PositiveFloat | None = 1.0
    """Gradients are clipped to this norm; null, as in the original code, leaves them as they are."""
    noise_pred_weight: NonNegativeFloat = 1.0
    """Weight of the distillation loss on the noise prediction (the paper's lambda_L)."""
    feature_weight: NonNegativeFloat = 0.1
    """Weight of the distillation loss on the features (the paper's lambda_FL)."""
    block_weights: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Block -> factor on its share of the feature loss; 1 where absent, and 0 leaves the block out."""
    feature_scale: Literal["raw", "relative"] = "relative"
    """``relative`` divides a block's feature error by the mean square of the teacher's features there, so that a block
    of large values drowns neither the others nor the other losses; ``raw`` is the paper's sum."""
    diffusion_weight: NonNegativeFloat = 1.0
    """Weight of the ordinary diffusion loss."""
    diffusion_error: Literal["velocity", "prediction"] = "velocity"
    """What the diffusion loss measures: the error of the velocity, whatever the UNet predicts, or that of its
    prediction, as in the paper. They differ where it predicts the noise: at noisy timesteps, where the caption decides
    what an image shows, a wrong image hardly counts as wrong noise."""
    text_weight: NonNegativeFloat = 0.0
    """Weight of the distance between the adapter's text states and the teacher's English ones (text-encoder
    distillation); 0 needs no English encoder."""
    text_error: Literal["distance", "square"] = "distance"
    """What a phase of kind ``text`` lowers: the distance itself, or its square, which lets wrong captions pull more."""
    attention_weight: NonNegativeFloat = 0.0
    """Weight, in a phase of kind ``unet``, of the loss that a phase of kind ``attention`` has alone; needs
    ``cache.attention``."""
    attention_queries: Literal["cached", "student"] = "cached"
    """Whose queries that loss asks in a phase of kind ``unet``: the teacher's, from the cache, or those of the
    student's own pass, of every layer that the cache keeps and at every position."""
    attention_layer_weights: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Cross-attention layer -> factor on its share of the loss on queries; 1 where absent, and 0 leaves it out."""
    diffusion_rows: Literal["culture", "all"] = "culture"
    """Rows with the diffusion loss: those of the culture corpus (hybrid training), or all."""
    keep_text_states: bool = False
    """Keep the native encoder's states of all captions beside the caches, for later runs, and in no run's memory."""
    targets: Literal["cached", "live"] = "cached"
    """Where the teacher's answers come from: the cache, or the teacher itself at every step."""
    text_perturbation: NonNegativeFloat = 0.0
    """Disturb the student's text states with normal noise of this length (before the UNet sees them)."""
    curriculum_steps: NonNegativeInt = 0
    """UNet steps over which distillation goes from the noisiest timesteps (easy) to all; 0: all from the beginning."""
    curriculum_stages: PositiveInt = 20
    """Number of stages of that way."""
    min_snr_gamma: PositiveFloat | None = None
    """Weight records by min-SNR with this gamma; null weights all alike."""
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Publish an exponential moving average of the adapter with this decay per step; null: the last weights."""
    max_skipped_steps: PositiveInt = 10
    """Consecutive steps without a finite loss after which the run stops; fewer are skipped and counted."""
    resume: Literal["auto", "never", "must"] = "auto"
    """Go on from the newest saved state of the same run: if there is one, never, or fail if there is none."""
    init: Literal["whitened", "scaled", "torch"] = "whitened"
    """The adapter before the first step. ``whitened``: torch's initial weights, with the inputs whitened over the
    corpus' captions and the outputs scaled to the spread of the teacher's English text states; ``scaled``: the latter
    alone; ``torch``: those weights as they are, as in the original code."""
    init_from: SetupPath | None = None
    """Adapter that the run starts from: its folder, or ``org/name@revision``. It must be for the same text encoder,
    read alike, for a diffusion model of the same kind, and of the sizes in `student.adapter`. Null: initial weights."""
    seed: NonNegativeInt = 0
    """Seed of the adapter's initial weights and of the order of the records."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision."""
    device: Literal["auto", "cpu"] = "auto"
    """``auto``: a GPU where there is one."""
    gradient_accumulation_steps: PositiveInt = 1
    """Batches per optimizer step."""
    gradient_checkpointing: bool = False
    """Recompute UNet activations in the backward pass to save memory."""
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the samples that is held out, by their keys, to choose the adapter that is published. Where no sample
    falls into it, that is said, and the last step's adapter is published."""
    validate_every_steps: PositiveInt = 500
    """Steps between two measurements of the loss on the held-out samples."""
    validation_batches: PositiveInt = 16
    """Batches of held-out samples that are measured, always the same."""
    patience: PositiveInt | None = None
    """End after so many measurements in a row without a lower loss than the lowest; null: only after all steps."""
    sample_every_steps: NonNegativeInt = 0
    """Steps between two pictures of `sample_prompts`, in `training/samples`; 0: none."""
    sample_prompts: tuple[str, ...] = ()
    """Prompts of these pictures, in the student's language."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Programs that are told every row of the log as well, through accelerate."""
    save_every_steps: PositiveInt = 1_000
    """Steps between two saved states that a stopped run resumes from."""
    keep_states: PositiveInt = 2
    """Saved states that are kept."""
    log_every_steps: PositiveInt = 10
    """Steps between two rows of the training log."""
    num_workers: NonNegativeInt = 0
    """Batches that a thread reads ahead of the trainer; 0 reads them between the steps."""
    local_copy_bytes: NonNegativeInt = DEFAULT_BYTES
    """What is read of caches in buckets is kept on this machine's disk (``PEA_WORK_DIR``) for the next epoch, up to
    this size of all copies there; 0 keeps none."""

    @model_validator(mode="after")
    def _check_what_needs_another(self) -> Self:
        if self.sample_every_steps and not self.sample_prompts:
            raise ValueError("sample_every_steps needs sample_prompts")
        if self.patience is not None and not self.validation_fraction:
            raise ValueError("patience needs a validation_fraction")
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        kinds = [phase.kind for phase in self.phases]
        if "unet" in kinds[:-1]:
            raise ValueError("a phase of kind unet can only be the last one")
        if kinds and "unet" not in kinds:
            if self.method != "adapter":
                raise ValueError(f"method {self.method} trains the UNet, and needs a phase of kind unet")
            if self.ema_decay is not None:
                raise ValueError("ema_decay needs a phase of kind unet")
        last = self.all_phases[-1]
        if self.curriculum_steps and last.kind == "unet" and last.train.timesteps:
            raise ValueError("curriculum_steps chooses the timesteps itself, and cannot be set beside timesteps")
        weighted = self.attention_weight > 0 or any(phase.attention_weight for phase in self.phases)
        losses = ("noise_pred_weight", "feature_weight", "diffusion_weight", "text_weight", "attention_weight")
        if last.kind == "unet" and not any(getattr(last.train, name) for name in losses):
            raise ValueError(f"no loss is left: {', '.join(losses)} are all 0")
        if not weighted and any(phase.train.attention_queries == "student" for phase in self.all_phases):
            raise ValueError("attention_queries: student needs an attention_weight")
        if weighted and self.method != "adapter":
            raise ValueError(f"method {self.method} changes the layers that attention_weight keeps frozen")
        return self

    @property
    def all_phases(self) -> tuple[Phase, ...]:
        """Every phase of the run, at least one, with its settings."""
        phases = self.phases or (PhaseConfig(kind="unet"),)
        return tuple(Phase(each.kind, self.model_copy(update={"phases": (), **each.given})) for each in phases)
