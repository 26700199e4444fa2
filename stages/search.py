"""Search the settings of each method fairly: the same number of candidates and of records for all of them.

    pea search configs/searches/methods.yaml --jobs 2

For each method, candidates (batch, rate, weight and share of culture rows, ...) are drawn from the search's `space` and
trained in rungs: from each rung to the next the better half goes on, with twice the records. They are chosen by the
mean score on the prompts of the search, which are not those that a table reports. What is left in
`run_dir/search/METHODS`, named after the file:

* `NAME/table.md`: every candidate of every rung with its scores;
* `study.yaml`: the winners of all methods as a study, on held-out prompts, for `pea sweep`.

Finished runs are kept, so to go on after a stop, run the same command.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pea.config import Config
from pea.errors import TrainingError
from pea.plurals import count_of
from pea.storage.durable import write_text
from stages.command.arguments import at_least_one, local_path
from stages.command.common import add_config_arguments
from stages.command.console import Console, bold
from stages.search_plan import (
    PROMPTS,
    Candidate,
    Rung,
    Scores,
    SearchFile,
    configurations,
    dotted,
    draw_candidates,
    halve,
    ranked,
    read_search,
    rung_sizes,
    with_records,
)
from stages.sweep import carry_out_all
from stages.sweep_plan import SHARED_PHASES, Run
from stages.sweep_table import whole_number


class MethodSearch:
    """The rungs of one method."""

    def __init__(self, name: str, configs: Mapping[str, Config], base: Config, seed: int, search_name: str) -> None:
        """`configs`: of each candidate; `base`: the setup; `search_name`: that of the search's file."""
        self.name, self._configs, self._base, self._seed = name, configs, base, seed
        self._search = base.run_dir / "search" / search_name
        self.folder = self._search / name
        self.lines: list[str] = []

    def run_of(self, rung: Rung, candidate: Candidate) -> Run:
        """A candidate's run, with a folder of its own."""
        config = with_records(self._configs[candidate.name], rung.records)
        update = {
            "run_dir": self.folder / f"rung{rung.number}" / candidate.name,
            "cache_root": self._base.cache_root or self._base.run_dir / "cache",
            "train": config.train.model_copy(update={"seed": self._seed}),
            "evaluate": config.evaluate.model_copy(update={"rows": ("adapter",)}),
        }
        config = config.model_copy(update=update)
        return Run(f"{self.name}, {candidate.name}", self._seed, config, self._search / SHARED_PHASES)

    def scored(self, rung: Rung, jobs: int, console: Console) -> Scores:
        """Train and score a rung; a candidate that fails has no score."""
        runs = {self.run_of(rung, candidate).method: candidate for candidate in rung.candidates}
        scores: dict[str, float] = {}
        for run, result in carry_out_all([self.run_of(rung, each) for each in rung.candidates], jobs, console):
            if result is None:
                continue
            candidate = runs[run.method]
            scores[candidate.name] = statistics.fmean(result["scores"].values())
            self.lines.append(_line(rung, candidate, scores[candidate.name], result))
        return scores


def search_method(
    method: MethodSearch, search: SearchFile, candidates: Sequence[Candidate], jobs: int, console: Console
) -> Candidate:
    """The winner of one method; its table is written after each rung.

    Raises:
        TrainingError: every candidate failed.
    """
    winner = None
    for rung, scores in halve(
        candidates, search.records_of(method.name), search.rungs, lambda rung: method.scored(rung, jobs, console)
    ):
        best = ranked(rung, scores)
        winner = best[0] if best else None
        write_text(method.folder / "table.md", _HEAD + "".join(sorted(method.lines, reverse=True)))
        if winner is not None:
            said = ", ".join(f"{name} {value}" for name, value in winner.settings.items())
            console.print(f"{method.name}, {count_of(rung.records, 'record')}: {scores[winner.name]:.3f} with {said}")
    if winner is None:
        raise TrainingError("every candidate failed", where=method.folder, remedy="The errors are above.")
    return winner


_HEAD = "| rung | records | candidate | score | scores | CPU s | settings |\n|---|---|---|---|---|---|---|\n"


def _line(rung: Rung, candidate: Candidate, score: float, result: Mapping[str, Any]) -> str:
    scores = ", ".join(f"{name} {value:.3f}" for name, value in result["scores"].items())
    settings = ", ".join(f"{name}={value}" for name, value in candidate.settings.items())
    cells = [
        rung.number,
        f"{rung.records:,}",
        candidate.name,
        f"{score:.4f}",
        scores,
        whole_number(result["cpu_seconds"]),
        settings,
    ]
    return "| " + " | ".join(map(str, cells)) + " |\n"


def study_of(search: SearchFile, winners: Mapping[str, Candidate], configs: Mapping[str, Config]) -> str:
    """A study of the winners with all records and three seeds, on held-out prompts."""
    variants = {}
    for method, winner in winners.items():
        train = with_records(configs[method], search.records_of(method)).train
        length: dict[str, Any] = {"train.phases": [], "train.steps": train.steps}
        if train.phases:
            length = {"train.phases": [each.model_dump(mode="json", exclude_none=True) for each in train.phases]}
        own = {name: value for name, value in dotted(search.methods[method]).items() if name != "train.phases"}
        variants[method] = own | winner.settings | length
    settings = {name: value for name, value in search.settings.items() if name != _CHOSEN_BY_SO_MANY}
    body = {
        "config": [str(path) for path in search.config],
        "seeds": [0, 1, 2],
        "settings": settings | {PROMPTS: search.report_prompts},
        "variants": variants,
    }
    return _STUDY_HEAD + yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=110)


_CHOSEN_BY_SO_MANY = "evaluate.max_prompts"
"""A limit of the search, not of what a table reports."""
_STUDY_HEAD = "# Written by `pea search`: each method with the settings that it was found to do best with.\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea search``."""
    parser.add_argument("search", type=local_path, metavar="SEARCH", help="the search's file")
    add_config_arguments(parser, "the setup's YAML file, in place of those that the search names", required=False)
    parser.add_argument("--only", default="", metavar="NAME,...", help="these methods alone")
    parser.add_argument(
        "--jobs", type=at_least_one, default=1, metavar="N", help="runs at the same time, on a share of the CPU"
    )


def run_arguments(arguments: argparse.Namespace) -> int:
    """Carry out a search, or say what it would do."""
    console, search = Console(), read_search(arguments.search)
    if arguments.config:
        search = search.model_copy(update={"config": tuple(arguments.config)})
    candidates = draw_candidates(search.space, search.candidates, search.seed)
    only = [name for name in arguments.only.split(",") if name]
    base, configs = configurations(search, candidates, arguments.overrides, only)
    stem = arguments.search.stem
    methods = [
        MethodSearch(name, found, base, search.seed, stem)
        for name, found in configs.items()
        if name not in search.settings_like
    ]
    if arguments.dry_run:
        for method in methods:
            records_of_last = search.records_of(method.name)
            for number, (size, records) in enumerate(rung_sizes(len(candidates), records_of_last, search.rungs)):
                console.print(
                    f"{method.name}, rung {number}: {count_of(size, 'candidate')} on {count_of(records, 'record')}"
                )
        return 0
    winners = {}
    for method in methods:
        console.print(bold(method.name, f": {count_of(len(candidates), 'candidate')}"))
        winners[method.name] = search_method(method, search, candidates, arguments.jobs, console)
    winners |= {name: winners[like] for name, like in search.settings_like.items() if name in configs}
    chosen = {name: configs[name][winner.name] for name, winner in winners.items()}
    place = base.run_dir / "search" / stem / "study.yaml"
    write_text(place, study_of(search, winners, chosen))
    command = shlex.join(["pea", "sweep", str(place), *arguments.overrides])
    console.print(f"the winners on held-out prompts: {command}", soft_wrap=True)
    return 0
