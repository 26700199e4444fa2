"""How the adapter is scored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from pea.config.placeholders import SetupPath
from pea.config.section import Section


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
    seed: NonNegativeInt = 0
    """Seed of the initial noise."""
    batch_size: PositiveInt = 32
    """Images generated at a time, in float32; fewer where a GPU's memory is short."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    max_prompts: PositiveInt | None = None
    """Use only the first prompts of each set; null uses all."""
