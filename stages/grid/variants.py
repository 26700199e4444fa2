"""What a grid draws: one variant for each row, checkpoint, sampler and number of steps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

from pea.config import Config, GridConfig, SamplerConfig
from pea.errors import ConfigError
from pea.file_names import LORA_FILE
from pea.storage.hub import local_folder, with_revision

_FIXED = ("teacher", "translation", "no_adapter")


@dataclass(frozen=True)
class Variant:
    """One way to draw every prompt."""

    name: str
    row: str
    """`teacher`, `translation`, or the name of an adapter."""
    checkpoint: str
    sampler: str
    scheduler: str
    lora: Path | None
    num_inference_steps: int
    guidance_scale: float

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter makes its text states."""
        return self.row not in _FIXED


def checkpoints_of(config: Config) -> dict[str, Path]:
    """Name -> diffusion model as it is named in the configuration."""
    grid = grid_of(config)
    return dict(grid.checkpoints) or {"teacher": config.teacher.checkpoint}


def samplers_of(config: Config) -> dict[str, SamplerConfig]:
    """Name -> sampler."""
    scheduler = config.evaluate.scheduler
    return dict(grid_of(config).samplers) or {scheduler: SamplerConfig(scheduler=scheduler)}


def adapters_of(config: Config) -> dict[str, Path]:
    """Name -> adapter as it is named in the configuration."""
    if "adapter" not in config.evaluate.rows:
        return {}
    return dict(grid_of(config).adapters) or {"adapter": config.adapter_dir}


def grid_of(config: Config) -> GridConfig:
    """Its settings."""
    return config.evaluate.grid or GridConfig()


def variants_of(config: Config) -> list[Variant]:
    """All of them, in the order of the settings; a name says row, checkpoint (of several), sampler and steps.

    Raises:
        ConfigError: an adapter has the name of another row, two variants have one name, or `compare` names none.
    """
    evaluate, grid = config.evaluate, grid_of(config)
    if taken := sorted(set(grid.adapters) & set(_FIXED)):
        raise ConfigError("a row of another kind has this name", where="evaluate.grid.adapters", got=", ".join(taken))
    rows = [row for row in ("teacher", "translation") if row in evaluate.rows] + list(adapters_of(config))
    steps = grid.num_inference_steps or (evaluate.num_inference_steps,)
    found = []
    for row, checkpoint, (sampler, each), number in product(
        rows, checkpoints_of(config), samplers_of(config).items(), dict.fromkeys(steps)
    ):
        parts = [row, *([checkpoint] if len(grid.checkpoints) > 1 else []), sampler, str(number)]
        lora = None if each.lora is None else _lora_file(each.lora)
        guidance = evaluate.guidance_scale if each.guidance_scale is None else each.guidance_scale
        found.append(Variant("-".join(parts), row, checkpoint, sampler, each.scheduler, lora, number, float(guidance)))
    _check_names(found, grid)
    return found


def _lora_file(place: Path) -> Path:
    """The file of a LoRA that is a file, or a folder or model of the hub that holds one.

    Raises:
        CheckpointError: the hub has it not.
    """
    found = local_folder(with_revision(place))
    return found / LORA_FILE if found.is_dir() else found


def _check_names(variants: list[Variant], grid: GridConfig) -> None:
    names = [variant.name for variant in variants]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError("two variants have one name", where="evaluate.grid", got=", ".join(twice))
    if not names:
        raise ConfigError("nothing to draw", where="evaluate.rows", expected="teacher, translation or adapter")
    if unknown := sorted({name for pair in grid.compare for name in pair} - set(names)):
        raise ConfigError(
            "no such variant", where="evaluate.grid.compare", expected=f"of {', '.join(names)}", got=", ".join(unknown)
        )


def pairs_of(config: Config, variants: list[Variant]) -> list[tuple[str, str]]:
    """Names of the variants to compare: those of the settings, or each with the first."""
    first = variants[0].name
    return list(grid_of(config).compare) or [(variant.name, first) for variant in variants[1:]]
