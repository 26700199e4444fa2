"""Train every checkpoint of the world of things, from seeds.

    python -m data_tools.world.things.train_all

Parts that are finished in `--work` are kept: to resume, run the same command.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from data_tools.world.things.world import THINGS
from data_tools.world.train_all import Train, run_command
from data_tools.world.train_images import Phase, VaeShape, train_vae
from data_tools.world.train_judge import train_judge
from data_tools.world.train_latent_text import train_english_on_latents
from data_tools.world.train_text import Corpus, train_chinese, train_multilingual
from data_tools.world.train_unet import TeacherRecipe, train_teacher

CHECKPOINTS = Path(__file__).parent / "checkpoints"
PUBLISHED = ("judge", "chinese_clip", "japanese_clip", "korean_clip", "alt_clip", "weak_japanese", "sd15")
VAE_PHASES = (Phase(32, 16, 1500, 3e-3, 1e-6),)
VAE_SHAPE = VaeShape((24, 48, 64), latent_channels=4)
DECODER_STEPS = 400
CORPUS = Corpus(THINGS, num_general=8_000, english_per_concept=40, native_per_concept=60, vision_width=64)
FIVE_LANGUAGES = replace(CORPUS, num_general=24_000)  # each scene is told in one of them
MAX_ENGLISH_TOKENS = 24
UNET = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (64, 96, 128),
}
TEACHER = TeacherRecipe(
    THINGS,
    num_general=8_000,
    num_per_concept=40,
    prediction_type="epsilon",
    unet=UNET,
    train_text=True,
    batch_size=32,
    save_every_steps=1000,
)


def plan(work: Path) -> dict[str, Train]:
    """Every part in order of need: name -> training into a folder."""
    vae, english = work / "vae", work / "english"
    return {
        "vae": lambda out, report: train_vae(out, VAE_PHASES, DECODER_STEPS, 0, report, THINGS, VAE_SHAPE),
        "english": lambda out, report: train_english_on_latents(out, vae, 1200, 1, report, CORPUS, MAX_ENGLISH_TOKENS),
        "sd15": lambda out, report: train_teacher(out, vae, (english,), 8000, 6, report, TEACHER),
        "judge": lambda out, report: train_judge(out, 600, 0, report, THINGS),
        "chinese_clip": lambda out, report: train_chinese(out, 700, 3, report, CORPUS),
        "japanese_clip": lambda out, report: train_chinese(out, 700, 7, report, CORPUS, "ja"),
        "korean_clip": lambda out, report: train_chinese(out, 700, 8, report, CORPUS, "ko"),
        "alt_clip": lambda out, report: train_multilingual(out, 5000, 4, report, FIVE_LANGUAGES),
        "weak_japanese": lambda out, report: train_chinese(out, 140, 5, report, CORPUS, "ja", whole_script=False),
    }


def main(argv: list[str] | None = None) -> int:
    """Command line: see the module's docstring."""
    return run_command(argv, "world of things", CHECKPOINTS, Path("runs/things"), plan, PUBLISHED)


if __name__ == "__main__":
    sys.exit(main())
