"""Train every checkpoint of the world of things, from seeds.

    python -m data_tools.world.things.train_all

The VAE and the UNet start from those of the small world's SD1.5-shaped teacher, which predicts v; this one predicts
the noise. Takes over an hour of one core. Parts that are finished in `--work` are kept: to resume, run the
same command. None ship: the teacher reads too little yet (docs/results/world_of_things.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

from data_tools.world.things.world import THINGS
from data_tools.world.train_all import CHECKPOINTS as SMALL_CHECKPOINTS
from data_tools.world.train_all import Train, run_command
from data_tools.world.train_images import Phase, sharpen_vae, train_vae
from data_tools.world.train_judge import train_judge
from data_tools.world.train_text import Corpus, train_chinese, train_english, train_multilingual
from data_tools.world.train_unet import TeacherRecipe, train_teacher

CHECKPOINTS = Path(__file__).parent / "checkpoints"
PUBLISHED = ("judge", "chinese_clip", "alt_clip", "weak_japanese", "sd15")
VAE_PHASES = (Phase(32, 16, 1300, 1.5e-3, 1e-6), Phase(64, 8, 200, 6e-4, 1e-6))
CORPUS = Corpus(THINGS, english_per_concept=80, native_per_concept=120)
SD15 = SMALL_CHECKPOINTS / "sd15"
TEACHER = TeacherRecipe(THINGS, num_per_concept=80, prediction_type="epsilon", start=SD15, save_every_steps=500)


def plan(work: Path) -> dict[str, Train]:
    """Every part in order of need: name -> training into a folder."""
    vae, english = work / "sharp_vae", (work / "english",)
    return {
        "judge": lambda out, report: train_judge(out, 900, 0, report, THINGS),
        "vae": lambda out, report: train_vae(out, VAE_PHASES, 500, 0, report, THINGS, SD15 / "vae"),
        "sharp_vae": lambda out, report: sharpen_vae(out, work / "vae", 1600, 7, report, THINGS),
        "english": lambda out, report: train_english(out, 96, 900, 1, report, CORPUS),
        "sd15": lambda out, report: train_teacher(out, vae, english, 4500, 6, report, TEACHER),
        "chinese_clip": lambda out, report: train_chinese(out, 1000, 3, report, CORPUS),
        "alt_clip": lambda out, report: train_multilingual(out, 1000, 4, report, CORPUS),
        "weak_japanese": lambda out, report: train_chinese(out, 200, 5, report, CORPUS, "ja"),
    }


def main(argv: list[str] | None = None) -> int:
    """Command line: see the module's docstring."""
    return run_command(argv, "world of things", CHECKPOINTS, Path("runs/things"), plan, PUBLISHED)


if __name__ == "__main__":
    sys.exit(main())
