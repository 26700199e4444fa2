"""Retrain every checkpoint that ships with the small world, from seeds.

    python -m data_tools.world.train_all --out data_tools/world/checkpoints

Takes about four hours of one core. Parts that are finished in `--out` are kept: to resume, run the same command.
Numerics differ between processors, so a retrained file need not have the sha256 that `SHA256SUMS` lists for the
shipped one.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.progress import Progress
from torch import Tensor

from data_tools.world.train_images import DECODER_STEPS, VAE_PHASES, train_vae
from data_tools.world.train_judge import train_judge
from data_tools.world.train_text import train_chinese, train_english, train_multilingual
from data_tools.world.train_unet import train_teacher
from data_tools.world.training import Report

CHECKPOINTS = Path(__file__).parent / "checkpoints"
_DONE = "trained"
_UNPUBLISHED = shutil.ignore_patterns(_DONE, "step-*")

Train = Callable[[Path, Report], object]
Plan = Callable[[Path], dict[str, Train]]
"""Folder of the parts -> every part in order of need: name -> training into a folder."""


def plan(work: Path) -> dict[str, Train]:
    """Every part in order of need: name -> training into a folder."""
    vae, english = work / "vae", (work / "english_a", work / "english_b")
    return {
        "judge": lambda out, report: train_judge(out, 700, 0, report),
        "vae": lambda out, report: train_vae(out, VAE_PHASES, DECODER_STEPS, 0, report),
        "english_a": lambda out, report: train_english(out, 96, 700, 1, report),
        "english_b": lambda out, report: train_english(out, 128, 700, 2, report),
        "chinese_clip": lambda out, report: train_chinese(out, 1400, 3, report),
        "alt_clip": lambda out, report: train_multilingual(out, 1400, 4, report),
        "sdxl": lambda out, report: train_teacher(out, vae, english, 5000, 5, report),
        "sd15": lambda out, report: train_teacher(out, vae, english[:1], 5000, 6, report),
    }


SHIPPED = ("judge", "chinese_clip", "alt_clip", "sdxl", "sd15")
"""Parts that the repository holds. The pipelines bring the VAE and their English encoders along."""


def train_all(out: Path, work: Path, plan: Plan = plan, shipped: Sequence[str] = SHIPPED) -> None:
    """Train what is not finished yet in `work`, then publish the shipped parts to `out`."""
    with Progress() as progress:
        for name, train in plan(work).items():
            if not (work / name / _DONE).exists():
                result = train(work / name, _reporter(progress, name))
                (work / name / _DONE).write_text(f"{result}\n")
    for name in shipped:
        shutil.copytree(work / name, out / name, dirs_exist_ok=True, ignore=_UNPUBLISHED)
    write_checksums(out)


def _reporter(progress: Progress, name: str) -> Report:
    task = progress.add_task(name, total=None)

    def report(step: int, steps: int, loss: Tensor) -> None:
        if step % 20 == 0 or step == steps - 1:
            progress.update(
                task, total=steps, completed=step + 1, description=f"{name} (loss {float(loss.detach()):.3f})"
            )

    return report


def write_checksums(folder: Path) -> None:
    """`SHA256SUMS` in the format of `sha256sum`, for every file below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n" for p in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


def main(argv: list[str] | None = None) -> int:
    """Command line: see the module's docstring."""
    return run_command(argv, "small world", CHECKPOINTS, Path("runs/world"), plan, SHIPPED)


def run_command(argv: list[str] | None, world: str, out: Path, work: Path, plan: Plan, shipped: Sequence[str]) -> int:
    """The command line of a world's trainings; `out` and `work` are the defaults of its two options."""
    parser = argparse.ArgumentParser(description=f"Retrain the {world}'s checkpoints from seeds.")
    parser.add_argument("--out", type=Path, default=out, help="folder of the shipped checkpoints")
    parser.add_argument("--work", type=Path, default=work, help="folder of the parts and of resuming")
    arguments = parser.parse_args(argv)
    train_all(arguments.out, arguments.work, plan, shipped)
    print(f"{arguments.out}: {', '.join(shipped)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
