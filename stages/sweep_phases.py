"""Phases that several runs of a sweep have in common are trained once.

What a run's phases without the UNet leave is kept beside the runs, and a later run whose phases begin alike takes it as
if it had saved it itself. The training looks at such a state as at any other, and begins anew where a setting differs
that decides it. Seconds and arithmetic of a phase count in full for each run that has it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from pea.config import Config
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.durable import new_folder
from stages.training.fingerprints import settings_without_unet
from stages.training.phase import states_folder


def take_finished_phases(config: Config, store: Path) -> None:
    """Copy those that `store` has into the run's folder, unless the run has begun already."""
    for kept, own in _folders(config, store):
        if not kept.exists():
            return
        if not own.exists():
            shutil.copytree(kept, own)


def keep_finished_phases(config: Config, store: Path) -> None:
    """Copy those that the run has finished into `store`, for the runs after it."""
    for kept, own in _folders(config, store):
        if own.exists() and not kept.exists():
            with new_folder(kept, replace=False) as temporary:
                shutil.copytree(own, temporary, dirs_exist_ok=True)


def _folders(config: Config, store: Path) -> Iterator[tuple[Path, Path]]:
    """Of each phase before the UNet: its folder in the store, and in the run."""
    like = {
        "student": config.student.model_dump(mode="json"),
        "init": config.train.init,
        "cache": str(config.cache_root),
    }
    phases = [phase for phase in config.train.all_phases if phase.kind != "unet"]
    settings = []
    for number, phase in enumerate(phases, 1):
        settings.append(settings_without_unet(phase))
        name = sha256_text(canonical_json(like | {"phases": settings}))[:16]
        yield store / name, states_folder(config, number, phase.kind)
