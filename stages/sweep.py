"""Train and score several methods, each with several seeds: one table, one figure, one page.

    pea sweep configs/methods --config configs/demo.yaml --seeds 0,1,2 --jobs 2
    pea sweep configs/studies/phases.yaml --jobs 2

What is compared are the method files of a folder, each laid over the setup, or the variants that a study's file lists
together with its setup and seeds. The setup that `--config` names, and `--seeds`, take the place of the study's.

All methods use the setup's cache; those that change what a cache holds get one of their own, filled before the first
run, and those that change it alike share it. Each (method, seed) has a run folder of its own in `run_dir/sweep`; those
that are finished are kept, so to go on after a stop, run the same command.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from data_tools.cost_figure import cost_figure
from data_tools.report.sweep_page import sweep_page
from data_tools.score_figure import score_figure
from data_tools.tables import human_seconds
from pea.errors import ConfigError, PeaError, TrainingError
from pea.file_names import REPORT
from pea.storage.durable import write_text
from stages.command.arguments import at_least_one, local_path
from stages.command.common import add_config_arguments, save_resolved
from stages.command.console import Console, bold
from stages.sweep_plan import Plan, Run, plan
from stages.sweep_study import read_study
from stages.sweep_table import markdown, summarize


def fill_caches(runs: Sequence[Run], console: Console) -> None:
    """Fill the caches that methods have for themselves; a finished one is only looked at."""
    from stages.cluster import filling

    by_cache = {run.config.cache_root: run for run in reversed(runs) if run.own_cache and run.result() is None}
    for run in reversed(by_cache.values()):
        console.print(bold(run.method, ": a cache of its own"))
        filling.fill_caches(run.config, console)


def carry_out(run: Run, console: Console) -> dict[str, Any]:
    """Train and score one run."""
    from stages import evaluate, train_adapter
    from stages.sweep_phases import keep_finished_phases, take_finished_phases

    save_resolved(run.config, run.config.run_dir)
    caches = run.cached_rows() if run.row == "adapter" else {}  # the others read none
    summary: dict[str, Any] = {"seconds": 0.0, "trained_parameters": 0}
    if run.row == "adapter":  # the others need no training
        take_finished_phases(run.config, run.shared_phases)
        summary = train_adapter.run(run.config, console)
        keep_finished_phases(run.config, run.shared_phases)
    metrics = evaluate.run(run.config, console)
    result = {
        "scores": {name.partition(".")[2]: value for name, value in metrics.items() if name.startswith(f"{run.row}.")},
        "seconds": summary["seconds"],
        "cpu_seconds": summary.get("cpu_seconds", 0.0),
        "unet_rows": summary.get("unet_rows", 0),
        "tflop": summary.get("tflop", 0.0),
        "trained_parameters": summary["trained_parameters"],
        "bytes_per_record": metrics.get("cache.bytes_per_record", 0.0),
        "settings": run.settings,
        "caches": caches,
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
            console.print(f"{run.name}: finished already")
            yield run, known
    if jobs == 1:
        for run in to_do:
            console.print(bold(run.name))
            yield run, _result_of(run, partial(carry_out, run, console), console)
        return
    import torch

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
                said = ", ".join([*values, f"{human_seconds(result['seconds'])} of training"])
                console.print(f"{run.name}: {said}")
                yield run, result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _result_of(run: Run, result: Callable[[], dict[str, Any]], console: Console) -> dict[str, Any] | None:
    try:
        return result()
    except PeaError as error:
        console.print(f"{run.name} failed: {error}", style="red")
        return None


def _begin_job(num_threads: int) -> None:
    """In a process of the pool: its share of the cores, and an end together with the sweep, however that ends."""
    import torch

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
    parser.add_argument(
        "methods", type=local_path, metavar="METHODS", help="a study's file, or a folder of method files"
    )
    add_config_arguments(parser, "the setup's YAML file, in place of those that a study names", required=False)
    parser.add_argument("--seeds", metavar="N,N,...", help="seeds of the training (default: the study's, or 0)")
    parser.add_argument("--only", default="", metavar="NAME,...", help="these methods or variants alone")
    parser.add_argument(
        "--jobs", type=at_least_one, default=1, metavar="N", help="runs at the same time, on a share of the CPU"
    )


def _seeds_in(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words) or len({int(word) for word in words}) < len(words):
        raise ConfigError("not a list of seeds", where="--seeds", expected="0,1,2", got=text)
    return [int(word) for word in words]


def run_arguments(arguments: argparse.Namespace) -> int:
    """Carry out a sweep, or say what it would do."""
    console = Console()
    seeds = _seeds_in(arguments.seeds) if arguments.seeds is not None else ()
    only = [name for name in arguments.only.split(",") if name]
    study = read_study(arguments.methods)
    sweep = plan(study, arguments.config or (), arguments.overrides, seeds=seeds, only=only)
    if not all(run.config.evaluate.prompts for run in sweep.runs):  # before hours of training, not after them
        raise ConfigError("nothing to score the methods on", where="evaluate.prompts", expected="general: FILE.jsonl")
    if any(run.config.evaluate.grid is not None for run in sweep.runs):
        raise ConfigError("a sweep scores one row of each method", where="evaluate.grid", expected="null", got="a grid")
    if arguments.dry_run:
        for run in sweep.runs:
            state = ", finished already" if run.result() else ", with a cache of its own" if run.own_cache else ""
            console.print(f"{run.name}: {run.config.run_dir}{state}")
        return 0
    fill_caches(sweep.runs, console)
    return _carry_out_and_show(sweep, arguments.jobs, console)


def _carry_out_and_show(sweep: Plan, jobs: int, console: Console) -> int:
    results, failed = [], []
    for run, result in carry_out_all(sweep.runs, jobs, console):
        if result is None:
            failed.append(run.name)
            continue
        results.append((run.method, result))
        console.print(f"{len(results)} of {len(sweep.runs)} runs")
        rows = summarize(results)
        write_text(sweep.folder / "table.json", json.dumps(rows, indent=1) + "\n")
        write_text(sweep.folder / "table.md", markdown(rows))
    if results:
        _show(rows, sweep.folder, console)
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(sweep.runs)} runs failed",
            where=sweep.folder,
            got="; ".join(failed),
            remedy="The errors are above. The same command goes on with what is left.",
        )
    return 0


def _show(rows: Sequence[dict[str, Any]], folder: Path, console: Console) -> None:
    """The figure and the table of what is finished."""
    if rows[0]["scores"]:
        write_text(folder / "figure.svg", score_figure(rows))
        if all(row["cpu_seconds"] is not None for row in rows):
            write_text(folder / "seconds.svg", cost_figure(rows))
        write_text(folder / REPORT, sweep_page(f"Sweep {folder.name}", rows))
        console.print(f"report: {folder / REPORT}")
    else:
        console.print(f"no judge, CLIP or other scorer is configured: images only, in {folder}")
    console.print(markdown(rows))
