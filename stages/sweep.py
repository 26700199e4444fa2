"""Train and score several methods, each with several seeds: one table, one figure.

    pea sweep configs/methods --config configs/demo.yaml --seeds 0,1,2 --jobs 2

A method is a file of settings that is laid over the setup. All use the setup's cache; a method that changes what a
cache holds gets one of its own, filled before its first run. Each (method, seed) has a run folder of its own in
`run_dir/sweep`; those that are finished are kept, so to go on after a stop, run the same command.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.console import Console

from pea.config import Config, load_config
from pea.config.yaml_text import parse_yaml
from pea.errors import ConfigError, PeaError, TrainingError
from pea.storage.durable import write_bytes, write_text
from stages.command.common import add_config_arguments, config_from, save_resolved
from stages.sweep_table import markdown, picture, summarize

_DONE = "sweep.json"


@dataclass(frozen=True)
class Run:
    """One method with one seed."""

    method: str
    seed: int
    config: Config
    own_cache: bool = False
    """Whether the method's cache is filled for it alone."""

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"{self.method}, seed {self.seed}"

    @property
    def row(self) -> str:
        """The way to draw that is scored: the trained adapter, unless the method's file names another."""
        return self.config.evaluate.rows[0]

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the result; a result of other settings is not kept."""
        return self.config.model_dump(mode="json")

    @property
    def result_path(self) -> Path:
        """Written last."""
        return self.config.run_dir / _DONE

    def result(self) -> dict[str, Any] | None:
        """Scores, costs and settings of the finished run; None before it is finished with these settings."""
        if not self.result_path.exists():
            return None
        found: dict[str, Any] = json.loads(self.result_path.read_text("utf-8"))
        try:  # settings that are newer than the result had their defaults then
            settings = Config.model_validate_json(json.dumps(found["settings"]))
        except ValidationError:
            return None
        return found if settings == self.config else None


def plan(files: Sequence[Path], overrides: Sequence[str], methods: Path, seeds: Sequence[int]) -> list[Run]:
    """Every run of a sweep.

    Raises:
        ConfigError: there are no methods, or one does not fit the setup.
    """
    paths = sorted(methods.glob("*.yaml")) if methods.is_dir() else [methods]
    if not paths or not all(path.is_file() for path in paths):
        raise ConfigError("no methods here", where=methods, expected="a folder of .yaml files, or one of them")
    base = load_config(files, overrides)
    shared = base.cache_root or base.run_dir / "cache"
    runs = []
    for path in paths:
        folder = base.run_dir / "sweep" / path.stem
        own_cache = _cached(load_config([*files, path], overrides)) != _cached(base)
        for seed in seeds:
            settings = [
                f"run_dir={json.dumps(str(folder / f'seed{seed}'))}",
                f"cache_root={json.dumps(str(folder / 'cache' if own_cache else shared))}",
                f"train.seed={seed}",
            ]
            if "rows" not in (parse_yaml(path.read_text("utf-8"), where=str(path)).get("evaluate") or {}):
                settings.append("evaluate.rows=[adapter]")
            runs.append(Run(path.stem, seed, load_config([*files, path], [*overrides, *settings]), own_cache))
    return runs


def _cached(config: Config) -> dict[str, Any]:
    """What decides the content of a cache."""
    return config.model_dump(mode="json", include={"teacher", "corpora", "cache"}, exclude={"cache": {"run"}})


def fill_caches(runs: Sequence[Run], console: Console) -> None:
    """Fill the caches that methods have for themselves; a finished one is only looked at."""
    from stages import cache_teacher

    for run in {run.method: run for run in runs if run.own_cache and run.result() is None}.values():
        console.print(f"[bold]{run.method}[/bold]: a cache of its own", highlight=False)
        cache_teacher.run(run.config, console)


def carry_out(run: Run, console: Console) -> dict[str, Any]:
    """Train and score one run."""
    from stages import evaluate, train_adapter

    save_resolved(run.config)
    summary: dict[str, Any] = {"seconds": 0.0, "trained_parameters": 0}
    if run.row == "adapter":  # the others need no training
        summary = train_adapter.run(run.config, console)
    metrics = evaluate.run(run.config, console)
    result = {
        "scores": {name.partition(".")[2]: value for name, value in metrics.items() if name.startswith(f"{run.row}.")},
        "seconds": summary["seconds"],
        "tflop": summary.get("tflop", 0.0),
        "trained_parameters": summary["trained_parameters"],
        "bytes_per_record": metrics.get("cache.bytes_per_record", 0.0),
        "settings": run.settings,
    }
    write_text(run.result_path, json.dumps(result, indent=1) + "\n")
    return result


def carry_out_all(runs: Sequence[Run], jobs: int, console: Console) -> Iterator[tuple[Run, dict[str, Any] | None]]:
    """Each run with its result, in the order in which they finish; `jobs` at the same time.

    None is the result of a run that failed by an error that a user can meet; the others go on.
    With more than one job, each has a process and its share of the cores, and prints into `log.txt` of its run folder.
    """
    to_do = []
    for run in runs:
        known = run.result()
        if known is None:
            to_do.append(run)
        else:
            console.print(f"{run.name}: finished already", highlight=False)
            yield run, known
    if jobs == 1:
        for run in to_do:
            console.print(f"[bold]{run.name}[/bold]", highlight=False)
            yield run, _result_of(run, partial(carry_out, run, console), console)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_begin_job, initargs=(threads,)) as pool:
        futures = {pool.submit(_carry_out_logged, run): run for run in to_do}
        try:
            for future in as_completed(futures):
                run = futures[future]
                result = _result_of(run, future.result, console)
                if result is None:
                    yield run, None
                    continue
                values = [f"{name} {value:.3f}" for name, value in result["scores"].items()]
                said = ", ".join([*values, f"{result['seconds']:.0f} s of training"])
                console.print(f"{run.name}: {said}", highlight=False, soft_wrap=True)
                yield run, result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _result_of(run: Run, result: Callable[[], dict[str, Any]], console: Console) -> dict[str, Any] | None:
    try:
        return result()
    except PeaError as error:
        console.print(f"{run.name} failed: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return None


def _begin_job(num_threads: int) -> None:
    """In a process of the pool: its share of the cores, and an end together with the sweep, however that ends."""
    torch.set_num_threads(num_threads)
    sweep = multiprocessing.parent_process()
    assert sweep is not None

    def end_with_it() -> None:
        sweep.join()
        os._exit(1)

    threading.Thread(target=end_with_it, daemon=True).start()


def _carry_out_logged(run: Run) -> dict[str, Any]:
    run.config.run_dir.mkdir(parents=True, exist_ok=True)
    with (run.config.run_dir / "log.txt").open("a", encoding="utf-8") as log:
        return carry_out(run, Console(file=log, width=120))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea sweep``."""
    parser.add_argument("methods", type=Path, metavar="METHODS", help="folder of method files, or one of them")
    add_config_arguments(parser)
    parser.add_argument("--seeds", default="0", metavar="N,N,...", help="seeds of the training (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at the same time, on a share of the CPU")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Carry out a sweep, or say what it would do."""
    console, base = Console(), config_from(arguments)
    try:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
    except ValueError:
        raise ConfigError("not a list of seeds", where="--seeds", expected="0,1,2", got=arguments.seeds) from None
    if arguments.jobs < 1:
        raise ConfigError("not a number of jobs", where="--jobs", expected="1 or more", got=arguments.jobs)
    runs = plan(arguments.config, arguments.overrides, arguments.methods, seeds)
    if not all(run.config.evaluate.prompts for run in runs):  # before hours of training, not after them
        raise ConfigError("nothing to score the methods on", where="evaluate.prompts", expected="general: FILE.jsonl")
    if arguments.dry_run:
        for run in runs:
            console.print(f"{run.name}: {run.config.run_dir}", highlight=False, soft_wrap=True)
        return 0
    fill_caches(runs, console)
    folder, results, failed = base.run_dir / "sweep", [], []
    for run, result in carry_out_all(runs, arguments.jobs, console):
        if result is None:
            failed.append(run.name)
            continue
        results.append((run.method, result))
        console.print(f"{len(results)} of {len(runs)} runs", highlight=False)
        rows = summarize(results)
        write_text(folder / "table.json", json.dumps(rows, indent=1) + "\n")
        write_text(folder / "table.md", markdown(rows))
    if results:
        _show(rows, folder, console)
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(runs)} runs failed",
            where=folder,
            got="; ".join(failed),
            remedy="The errors are above. The same command goes on with what is left.",
        )
    return 0


def _show(rows: Sequence[dict[str, Any]], folder: Path, console: Console) -> None:
    """The figure and the table of what is finished."""
    if rows[0]["scores"]:
        write_bytes(folder / "figure.png", picture(rows))
    else:
        console.print(f"neither judge nor CLIP is configured: images only, in {folder}", highlight=False)
    console.print(markdown(rows), highlight=False, markup=False, soft_wrap=True)
