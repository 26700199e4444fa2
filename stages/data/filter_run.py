"""What ``pea data filter`` does."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from data_tools.corpus.duplicates import Duplicates
from data_tools.corpus.filter_rules import CaptionRule, ColumnRule, Rule, prompt_rule, size_rule
from data_tools.corpus.languages import require_identifier
from data_tools.corpus.tar_items import TarSample
from data_tools.corpus.tar_to_tar import PartRecord, rewrite_tar
from data_tools.tables import say, table
from pea.corpus.damaged_tars import FINISHED_IS_KEPT, DamagedTars
from pea.corpus.places import Tar, expand_tars
from pea.corpus.tars import scan_tar
from pea.errors import ConfigError, CorpusError
from pea.evaluation.prompts import read_prompts
from pea.plurals import count_of
from stages.data.common import check_spread_arguments

Filtered = tuple[str, PartRecord, bool]
"""Name of a tar, what became of it, and whether it was there already."""


def run(arguments: argparse.Namespace) -> int:
    """Filter every tar, and print the funnel.

    Raises:
        ConfigError: no rule is given, or one needs a package that is not installed.
        CorpusError: a tar is damaged, or nothing is left.
    """
    check_spread_arguments(arguments)
    total, damaged = PartRecord(), DamagedTars()
    found = _spread(arguments) if arguments.ray is not None else _one_after_the_other(arguments, damaged)
    for _, record, _ in found:
        total.add(record)
    say(funnel(total))
    for change, count in sorted(total.changes.items()):
        say(f"taken out: {count} {change}")
    damaged.refuse(FINISHED_IS_KEPT)
    if not total.kept:
        raise CorpusError(
            "no sample is left", where=" ".join(arguments.tars), got=f"{count_of(total.seen, 'sample')} before"
        )
    return 0


def begin(arguments: argparse.Namespace) -> Callable[[Tar], Filtered]:
    """What is done to a tar.

    Raises:
        ConfigError: no rule is given, or one needs a package that is not installed.
    """
    rules, duplicates = _rules(arguments)
    settings = {name: str(value) for name, value in sorted(vars(arguments).items()) if name in _SETTINGS}

    def decide(sample: TarSample, record: PartRecord) -> str | None:
        return next((reason for rule in rules if (reason := rule(sample, record)) is not None), None)

    def work(tar: Tar) -> Filtered:
        record, was_there = rewrite_tar(tar, arguments.out, settings, decide)
        if was_there and duplicates:
            duplicates.recall(record)
        return tar.name, record, was_there

    return work


def _one_after_the_other(arguments: argparse.Namespace, damaged: DamagedTars) -> Iterator[Filtered]:
    work = begin(arguments)
    for tar in expand_tars(arguments.tars):
        with damaged.noted():
            if damaged and arguments.duplicates:  # what stays depends on the samples of the tars before
                scan_tar(tar)
                say(f"{tar.name}: waits for the damaged tars before it")
                continue
            found = work(tar)
            _tell(found)
            yield found


def _spread(arguments: argparse.Namespace) -> Sequence[Filtered]:
    from stages.cluster.spreading import spread
    from stages.data.spread import resolved, run_options

    if arguments.duplicates:
        remedy = "Leave --ray or --duplicates out; a second `pea data filter` can look for duplicates on one machine."
        raise ConfigError("duplicates are looked for in one tar after the other", where="--duplicates", remedy=remedy)
    _rules(arguments)  # what cannot be done is refused here, and not on a worker
    tars = [(tar.name, resolved(tar)) for tar in expand_tars(arguments.tars)]
    make = partial(begin, arguments)
    found: Sequence[Filtered] = spread(tars, make, run_options(arguments), place=arguments.out, tell=_tell)
    return found


def _tell(found: Filtered) -> None:
    name, record, was_there = found
    say(f"{name}: {'there already, ' if was_there else ''}{record.kept} of {record.seen} kept")


_SETTINGS = frozenset(
    ("where", "min_side", "max_aspect", "min_caption", "max_caption", "language_confidence", "need", "duplicates")
    + ("prompts",)
)


def funnel(total: PartRecord) -> str:
    """What each rule has left out, the commonest first, and what is left."""
    rows, left = [("all samples", "", total.seen)], total.seen
    for reason, count in total.dropped.most_common():
        left -= count
        rows.append((reason, f"-{count}", left))
    return table(("left out as", "samples", "left"), rows)


def _rules(arguments: argparse.Namespace) -> tuple[Sequence[Rule], Duplicates | None]:
    """Cheap ones first: what one has left out, no later one looks at."""
    rules: list[Rule] = [ColumnRule.parse(text) for text in arguments.where]
    if arguments.min_side is not None or arguments.max_aspect is not None:
        rules.append(size_rule(arguments.min_side, arguments.max_aspect))
    confidence, limits = arguments.language_confidence, (arguments.min_caption, arguments.max_caption)
    if confidence is not None:
        require_identifier("--language-confidence")
    if confidence is not None or limits != (None, None) or arguments.need:
        rules.append(CaptionRule(*limits, confidence, tuple(arguments.need)))
    if arguments.prompts:
        rules.append(prompt_rule(_prompts(arguments.prompts)))
    duplicates = Duplicates(perceptual=arguments.duplicates == "perceptual") if arguments.duplicates else None
    if duplicates:
        rules.append(duplicates)
    if not rules:
        raise ConfigError("no rule is given", where="pea data filter", expected="one of the options of --help")
    return rules, duplicates


def _prompts(files: Sequence[Path]) -> list[str]:
    return [text for path in files for prompt in read_prompts(path) for text in prompt.captions.values()]
