"""What a cache will cost and save, before any GPU is used: sizes, GPU-hours, days, money, memory, and a verdict.

    pea plan --config configs/sdxl.yaml --preset sdxl --samples 5600000 --languages 5 --gpus 8 train.steps=1400000
    pea plan --config configs/sd15.yaml --samples 1000000 --gpu rtx4090 --price 0.4
    pea plan --config configs/sd15.yaml --preset sd15 --samples 1000000 --records-per-s 30 --json

Only configurations are read (of the checkpoint, or of a preset); feature shapes and arithmetic come from the real UNet
class on the meta device. Numbers of samples come from the tars where they are there. Hours are of a rate: as given, as
measured by the last run of the cache, or a stated share of what the GPU's data sheet says.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pea.config import Config, resolved_yaml
from pea.config.inputs import with_inputs_fetched
from stages.command.arguments import above_zero, at_least_one, at_least_zero, zero_or_above
from stages.command.common import add_config_arguments, config_from
from stages.command.console import Console
from stages.command.preflight import preflight_plan

PRESETS = Path(__file__).with_name("plan_presets.json")
GPUS = Path(__file__).parents[1] / "pea" / "costs" / "gpus.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea plan``."""
    add_config_arguments(parser)
    names = list(json.loads(PRESETS.read_text(encoding="utf-8")))
    parser.add_argument("--preset", choices=names, help="model shapes to use instead of the checkpoint folder's")
    add_rate_arguments(parser)
    parser.add_argument(
        "--languages", type=at_least_one, default=1, metavar="N", help="adapters from this cache (default: 1)"
    )
    parser.add_argument(
        "--runs", type=at_least_one, default=1, metavar="N", help="training runs per language (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def add_rate_arguments(
    parser: argparse.ArgumentParser,
    gpus: int | None = 1,
    gpus_help: str = "that share the work, for the days (default: 1)",
) -> None:
    """How much is to be done, how fast, and at which price; ``gpus``: the default of ``--gpus``."""
    parser.add_argument(
        "--samples", type=at_least_one, metavar="N", help="parallel samples, where the tars are not there yet"
    )
    names = list(json.loads(GPUS.read_text(encoding="utf-8"))["gpus"])
    parser.add_argument("--gpu", choices=names, default="h100", help="kind of GPU to count with (default: h100)")
    least = at_least_zero if gpus is None else at_least_one
    parser.add_argument("--gpus", type=least, default=gpus, metavar="N", help=gpus_help)
    parser.add_argument("--price", type=zero_or_above, metavar="USD", help="of an hour of one GPU, in US dollars")
    parser.add_argument("--records-per-s", type=above_zero, metavar="R", help="teacher's rate per GPU, as measured")
    parser.add_argument(
        "--tflops", type=above_zero, metavar="T", help="arithmetic rate that a GPU sustains, in TFLOP/s"
    )


def asked_of(arguments: argparse.Namespace, preset: str | None, *, languages: int = 1, runs: int = 1) -> Any:
    """The `pea.costs.plan.Asked` of a command line with `add_rate_arguments`."""
    from pea.costs.plan import Asked

    return Asked(
        models=preset_models(preset) if preset else None,
        samples=arguments.samples,
        languages=languages,
        runs=runs,
        gpu=arguments.gpu,
        num_gpus=arguments.gpus or 1,
        price=arguments.price,
        records_per_s=arguments.records_per_s,
        tflops=arguments.tflops,
    )


def preset_models(name: str) -> Any:
    """Configurations of a family's models."""
    from pea.costs.caching import Models

    raw = json.loads(PRESETS.read_text(encoding="utf-8"))[name]
    return Models(raw["unet"], raw["vae"], raw["text"])


def as_json(plan: Any, changed: list[Any], verdict: str) -> str:
    """All numbers of a plan; hours are GPU-hours."""
    work = plan.work
    numbers = asdict(plan) | {
        "gpu_hours": plan.hours(work.caching),
        "training_gpu_hours": plan.hours(work.training),
        "online_gpu_hours": plan.hours(work.online),
        "total_gpu_hours": plan.hours(work.cached_total),
        "total_online_gpu_hours": plan.hours(work.online_total),
        "saving": work.saving,
        "break_even_trainings": work.break_even_trainings,
        "verdict": verdict,
        "changes": [
            {
                "settings": list(each.settings),
                "total_gpu_hours": plan.hours(each.plan.work.cached_total),
                "total_bytes": each.plan.total_bytes,
                "memory": each.plan.memory,
            }
            for each in changed
        ],
    }
    return json.dumps(numbers, indent=2)


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run with parsed arguments."""
    config = config_from(arguments)
    if arguments.dry_run:
        print(resolved_yaml(config), end="")
        return 0
    config = with_inputs_fetched(config)
    unchecked = preflight_plan(config, with_teacher=not arguments.preset)
    _plan(config, arguments, unchecked)
    return 0


def _plan(config: Config, arguments: argparse.Namespace, unchecked: list[str]) -> None:
    from pea.costs.changes import changes
    from pea.costs.plan import make_plan
    from stages.command.plan_tables import show, show_changes, show_gpus, verdict

    asked = asked_of(arguments, arguments.preset, languages=arguments.languages, runs=arguments.runs)
    plan = make_plan(config, asked)
    changed = changes(config, asked, plan)
    if arguments.json:
        print(as_json(plan, changed, verdict(plan, changed)))
        return
    console = Console()
    show(plan, console)
    if not (arguments.records_per_s or arguments.tflops):
        show_gpus(plan, console)
    show_changes(plan, changed, console)
    for line in [f"verdict: {verdict(plan, changed)}", *(f"unchecked: {each}" for each in unchecked)]:
        console.print(f"  {line}", soft_wrap=True)
