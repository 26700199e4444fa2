"""How the adapter is scored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, StringConstraints

from pea.config.device import DeviceName
from pea.config.placeholders import SetupPath
from pea.config.section import Section

Scheduler = Literal["ddim", "dpm", "euler", "unipc", "lcm"]
GridName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""What is drawn stands in folders of these names."""


class ScorersConfig(Section):
    """Published scorers of images: the folder of each, or its file where a folder has several; null leaves it out."""

    english_clip: SetupPath | None = None
    """CLIPScore by an English CLIP: ``CLIPModel`` of transformers (bigG, ViT-L/14...), or open_clip's file with its
    ``open_clip_config.json``."""
    pick_score: SetupPath | None = None
    """PickScore: the folder of ``PickScore_v1`` with CLIP's tokenizer in it."""
    hps_v2: SetupPath | None = None
    """HPSv2: ``HPS_v2_compressed.pt`` or ``HPS_v2.1_compressed.pt``, with CLIP's tokenizer beside it."""
    image_reward: SetupPath | None = None
    """ImageReward: ``ImageReward.pt`` and ``med_config.json``, with the tokenizer of ``bert-base-uncased`` beside."""
    aesthetic: SetupPath | None = None
    """LAION's aesthetic score: the folder of CLIP ViT-L/14 with ``sac+logos+ava1-l14-linearMSE.pth`` in it."""


class SamplerConfig(Section):
    """One way to take noise away."""

    scheduler: Scheduler
    """As ``evaluate.scheduler``."""
    guidance_scale: NonNegativeFloat | None = None
    """Strength of classifier-free guidance; null: ``evaluate.guidance_scale``. An LCM wants 1 to 2."""
    lora: SetupPath | None = None
    """LoRA file of the UNet (``.safetensors``) that this sampler needs, such as LCM's."""


class GridConfig(Section):
    """What `pea eval` compares in one call: every adapter and row, by every checkpoint, sampler and number of steps."""

    adapters: dict[GridName, SetupPath] = Field(default_factory=dict)
    """Name -> adapter: its folder, or ``org/name@revision``. Each is used with the encoder that it names, and reads
    captions in the first of its languages that a prompt set has. Empty: the setup's own, as ``adapter``."""
    checkpoints: dict[GridName, SetupPath] = Field(default_factory=dict)
    """Name -> diffusion model, in any form that ``teacher.checkpoint`` takes. Empty: the teacher."""
    samplers: dict[GridName, SamplerConfig] = Field(default_factory=dict)
    """Name -> sampler. Empty: ``evaluate.scheduler``."""
    num_inference_steps: tuple[PositiveInt, ...] = ()
    """Numbers of denoising steps. Empty: ``evaluate.num_inference_steps``."""
    compare: tuple[tuple[str, str], ...] = ()
    """Pairs of variants to compare prompt by prompt, as ``[zh-dpm-4, teacher-dpm-4]``. Empty: each with the first."""


class EvaluateConfig(Section):
    """How the adapter is scored."""

    rows: tuple[Literal["teacher", "translation", "no_adapter", "adapter"], ...] = Field(
        default=("teacher", "translation", "no_adapter", "adapter"), min_length=1
    )
    """Ways to draw the prompts: the teacher with English, with a word-for-word translation, an untrained adapter, the
    adapter. As it is by default, ``translation`` leaves out prompt sets without captions ``translation_<language>``;
    where another value names it, they are an error."""
    prompts: dict[str, SetupPath] = Field(default_factory=dict)
    """Prompt set (``general``, ``culture``) -> jsonl file."""
    judge: SetupPath | None = None
    """Folder of the judge that reads attributes off a generated image; null scores without it."""
    clip: SetupPath | None = None
    """Folder of a CLIP in the student's language, which scores each image against its prompt: a score where no judge
    can read images. Chinese-CLIP and AltCLIP, as published, serve here and as ``student.encoder``."""
    scorers: ScorersConfig = ScorersConfig()
    """Published scorers. All but the aesthetic one read English: they compare an image with the English caption of its
    prompt, whatever it was drawn from, and leave out prompts without one."""
    num_inference_steps: PositiveInt = 25
    """Denoising steps per image."""
    guidance_scale: NonNegativeFloat = 5.0
    """Strength of classifier-free guidance."""
    scheduler: Scheduler = "ddim"
    """How noise is taken away: DDIM, DPM-Solver++ (second order), Euler, UniPC; LCM needs a model that was distilled
    for it."""
    seed: NonNegativeInt = 0
    """Seed of the initial noise."""
    batch_size: PositiveInt = 32
    """Images generated at a time, in float32; fewer where a GPU's memory is short."""
    device: DeviceName = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:<index>``."""
    max_prompts: PositiveInt | None = None
    """Use only the first prompts of each set; null uses all."""
    grid: GridConfig | None = None
    """Several adapters, checkpoints, samplers and numbers of steps in one call, side by side in a table and on a page.
    Of ``rows``, ``adapter`` stands for each adapter, and ``no_adapter`` is left out. Null: the rows alone."""
