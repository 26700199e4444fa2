"""What a search tries: candidates from a grid, and successive halving over them; pure but for reading files.

Every method gets the same number of candidates and of records, so that none is compared from settings that were chosen
for another.

Source: arXiv 1603.06560 (successive halving), with each rung trained from the beginning to the end of its own schedule:
a schedule that was cut short says little of one that was not.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints, ValidationError, model_validator

from pea.config import Config, Section, load_config
from pea.config.yaml_text import describe_problems, names_in, read_yaml
from pea.errors import ConfigError
from stages.command.run_folder import need_disk
from stages.sweep_plan import cached_settings

PROMPTS = "evaluate.prompts"

_GIVEN = ("run_dir", "cache_root", "train.seed", "train.steps")
_Name = Annotated[str, StringConstraints(pattern=r"^\w[\w.+-]*$")]
Scores = Mapping[str, float]
"""Candidate -> score; those that failed are absent."""


class SearchFile(Section):
    """A search: one YAML file."""

    config: tuple[Path, ...] = Field(min_length=1)
    """The setup's files."""
    settings: dict[str, Any]
    """Laid over the setup, for all methods; a dotted ``evaluate.prompts`` among them names the prompts to choose by."""
    report_prompts: dict[str, str] = Field(min_length=1)
    """``evaluate.prompts`` of the study that is written for the winners: others than those."""
    methods: dict[_Name, dict[str, Any]] = Field(min_length=1)
    """Name -> settings that are laid over those."""
    space: dict[str, list[Any]] = Field(min_length=1)
    """Dotted setting -> values that are tried."""
    candidates: PositiveInt = 16
    """Points of the space that are tried for each method, drawn without repetition; all, where it has no more."""
    records: PositiveInt | dict[_Name, PositiveInt]
    """Records that the last phase of a run of the last rung trains on: a number for all, or one for each method, so
    that all of them take as many seconds."""
    settings_like: dict[_Name, _Name] = Field(default_factory=dict)
    """Method that is not searched -> the method whose settings it takes."""
    rungs: Annotated[int, Field(ge=1, le=8)] = 4
    """Rungs; from each to the next the better half goes on, with twice the records."""
    seed: NonNegativeInt = 0
    """Seed of the draw of candidates, and of their training."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [f"space.{name}: no values" for name, values in self.space.items() if not values]
        settings = {"settings": self.settings, "space": self.space}
        settings |= {f"methods.{name}": method for name, method in self.methods.items()}
        for where, given in settings.items():
            problems += [f"{where}: {name} is given by the search" for name in names_in(given) if name in _GIVEN]
        chosen_by = self.settings.get(PROMPTS)
        if not isinstance(chosen_by, dict) or not chosen_by:
            problems.append(f"settings: {PROMPTS} (dotted) has to name the prompts to choose by")
        elif shared := sorted(set(map(str, chosen_by.values())) & set(self.report_prompts.values())):
            problems.append(f"report_prompts: {', '.join(shared)} would be both chosen by and reported")
        if isinstance(self.records, dict) and set(self.records) != set(self.methods):
            problems.append("records: one number, or one for each of the methods and for nothing else")
        searched = set(self.methods) - set(self.settings_like)
        for method, like in self.settings_like.items():
            if method not in self.methods or like not in searched:
                problems.append(f"settings_like.{method}: {like}: of a method, that of one that is searched")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def records_of(self, method: str) -> int:
        """Records of the last phase of a method's last rung."""
        return self.records[method] if isinstance(self.records, dict) else self.records


class Candidate(NamedTuple):
    """One point of the space."""

    name: str
    """As its folder is called: `c00`, ..."""
    settings: dict[str, Any]
    """Dotted setting -> value."""


@dataclass(frozen=True)
class Rung:
    """Candidates that are trained on the same number of records."""

    number: int
    candidates: tuple[Candidate, ...]
    records: int


def read_search(path: Path) -> SearchFile:
    """A search's file.

    Raises:
        ConfigError: it cannot be read, or is wrong; all problems are reported at once.
    """
    raw = read_yaml(path, "search")
    if isinstance(raw.get("config"), str):
        raw["config"] = [raw["config"]]
    try:
        return SearchFile.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        problems = describe_problems(error.errors(include_url=False), list(SearchFile.model_fields))
        count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
        raise ConfigError(f"{count} in the search", where=path, got=" | ".join(problems), problems=problems) from None


def draw_candidates(space: Mapping[str, Sequence[Any]], number: int, seed: int) -> tuple[Candidate, ...]:
    """`number` different points of a grid in a seeded order; all of it in its order, where it has no more."""
    points = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    chosen = points if len(points) <= number else random.Random(seed).sample(points, number)
    return tuple(Candidate(f"c{index:02d}", point) for index, point in enumerate(chosen))


def halve(
    candidates: Sequence[Candidate], records: int, rungs: int, scored: Callable[[Rung], Scores]
) -> Iterator[tuple[Rung, Scores]]:
    """Each rung with its scores; the first candidate of the last one that is best by them has won.

    `scored` trains and scores a rung. Equal scores: the candidate that was drawn first goes on. One that failed is out.
    """
    left = list(candidates)
    for number in range(rungs):
        rung = Rung(number, tuple(left), max(1, records >> (rungs - 1 - number)))
        scores = scored(rung)
        yield rung, scores
        left = ranked(rung, scores)[: max(1, (len(left) + 1) // 2)]
        if not left:
            return


def rung_sizes(candidates: int, records: int, rungs: int) -> list[tuple[int, int]]:
    """How many candidates each rung has, where none fails, and on how many records they are trained."""
    sizes = []
    for number in range(rungs):
        sizes.append((candidates, max(1, records >> (rungs - 1 - number))))
        candidates = max(1, (candidates + 1) // 2)
    return sizes


def dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with dotted names; dotted ones stay as they are."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value and "." not in name:
            found |= {f"{name}.{inner}": each for inner, each in dotted(value).items()}
        else:
            found[name] = value
    return found


def ranked(rung: Rung, scores: Scores) -> list[Candidate]:
    """The candidates of a rung that did not fail, the best first."""
    alive = [candidate for candidate in rung.candidates if candidate.name in scores]
    return sorted(alive, key=lambda candidate: -scores[candidate.name])


def with_records(config: Config, records: int) -> Config:
    """The same run with as many steps of its last phase as it takes to train on so many records in one process."""
    train = config.train
    last = train.all_phases[-1].train
    per_step = last.batch_size * last.gradient_accumulation_steps
    steps = max(1, round(records / per_step))
    if train.phases:
        phases = (*train.phases[:-1], train.phases[-1].model_copy(update={"steps": steps}))
        train = train.model_copy(update={"phases": phases, "save_every_steps": max(1, steps)})
    else:
        train = train.model_copy(update={"steps": steps, "save_every_steps": max(1, steps)})
    return config.model_copy(update={"train": train})


def configurations(
    search: SearchFile, candidates: Sequence[Candidate], overrides: Sequence[str] = (), only: Sequence[str] = ()
) -> tuple[Config, dict[str, dict[str, Config]]]:
    """The setup, and method -> candidate -> its configuration, all of them checked.

    Raises:
        ConfigError: a method or a candidate does not fit the setup; the problems of all come at once.
    """
    searched = [name for name in search.methods if name not in search.settings_like]
    if unknown := sorted(set(only) - set(searched)):
        raise ConfigError("no such method to search", expected=f"of {', '.join(searched)}", got=", ".join(unknown))
    base = load_config(search.config, overrides, (search.settings,))
    need_disk(base, "pea search")
    if base.evaluate.judge is None and base.evaluate.clip is None:
        raise ConfigError("nothing scores the images", where="evaluate", expected="a judge or a clip", got="neither")
    if base.evaluate.grid is not None:
        raise ConfigError(
            "a search scores one row of each candidate", where="evaluate.grid", expected="null", got="a grid"
        )
    fixed = [*overrides, f"run_dir={json.dumps(str(base.run_dir))}"]
    found: dict[str, dict[str, Config]] = {}
    problems: list[str] = []
    for method in search.methods:
        if only and search.settings_like.get(method, method) not in only:
            continue
        found[method] = {}
        for candidate in candidates:
            layers = (search.settings, search.methods[method], candidate.settings)
            try:
                config = load_config(search.config, fixed, layers)
            except ConfigError as error:
                problems += [f"{method}, {candidate.name}: {each}" for each in error.problems or [str(error)]]
                continue
            if cached_settings(config) != cached_settings(base):
                problems.append(f"{method}, {candidate.name}: changes what the cache holds; a search varies training")
            found[method][candidate.name] = config
    if problems:
        count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
        raise ConfigError(f"{count} in the search", got=" | ".join(problems), problems=problems)
    return base, found
