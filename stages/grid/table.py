"""The tables of a grid: means with bootstrap intervals, and variants compared prompt by prompt."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from pea.evaluation.bootstrap import bootstrap, compare
from stages.grid.images import Drawing
from stages.grid.measuring import Line

Cells = list[list[str]]


def summarize(lines: Sequence[Line], drawings: Sequence[Drawing]) -> list[dict[str, Any]]:
    """One entry a variant, prompt set and scorer: its mean with what it was measured with."""
    settings = {(each.variant.name, each.prompt_set): each.settings for each in drawings}
    found = []
    for variant, prompt_set, scorer in _distinct(lines, "variant", "prompt_set", "scorer"):
        own = _of(lines, variant=variant, prompt_set=prompt_set, scorer=scorer)
        mean = bootstrap([line["score"] for line in own], [line["group"] for line in own])
        measured = {"scorer": scorer, "scorer_weights": own[0]["scorer_digest"], "num_images": len(own)}
        found.append(
            {
                "variant": variant,
                "prompt_set": prompt_set,
                "scorer": scorer,
                "mean": mean.as_dict(),
                "settings": settings[variant, prompt_set] | measured,
            }
        )
    return found


def comparisons(lines: Sequence[Line], pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """One entry a pair, prompt set and scorer that both variants have."""
    found = []
    kinds = _distinct(lines, "prompt_set", "scorer")
    for first, second in pairs:
        for prompt_set, scorer in kinds:
            own = [
                {line["prompt_id"]: line for line in _of(lines, variant=v, prompt_set=prompt_set, scorer=scorer)}
                for v in (first, second)
            ]
            if not set(own[0]) & set(own[1]):
                continue
            scores = [{name: line["score"] for name, line in each.items()} for each in own]
            paired = compare(scores[0], scores[1], {name: line["group"] for name, line in own[0].items()})
            entry = {"first": first, "second": second, "prompt_set": prompt_set, "scorer": scorer}
            found.append(entry | paired.as_dict())
    return found


def score_cells(scores: Sequence[dict[str, Any]], prompt_set: str) -> Cells:
    """The head and the rows of one prompt set: a row a variant, a column a scorer."""
    own = [entry for entry in scores if entry["prompt_set"] == prompt_set]
    scorers = list(dict.fromkeys(entry["scorer"] for entry in own))
    rows = [["variant", "scheduler", "steps", "guidance", *scorers, "n"]]
    for variant in dict.fromkeys(entry["variant"] for entry in own):
        means = {entry["scorer"]: entry["mean"] for entry in own if entry["variant"] == variant}
        settings = next(entry["settings"] for entry in own if entry["variant"] == variant)
        said = [settings[name] for name in ("scheduler", "num_inference_steps", "guidance_scale")]
        numbers = sorted({mean["n"] for mean in means.values()})
        cells = [shown(means[scorer]) if scorer in means else "" for scorer in scorers]
        rows.append([variant, *(f"{each:g}" if isinstance(each, float) else str(each) for each in said), *cells])
        rows[-1].append(" / ".join(map(str, numbers)))
    return rows


def comparison_cells(entries: Sequence[dict[str, Any]]) -> Cells:
    """The head and the rows: a row a pair, prompt set and scorer."""
    rows = [["first", "second", "prompts", "scorer", "first minus second", "wins", "ties", "losses", "n"]]
    for entry in entries:
        names = [entry[name] for name in ("first", "second", "prompt_set", "scorer")]
        counts = [str(entry[name]) for name in ("wins", "ties", "losses")]
        rows.append([*names, shown(entry["difference"], sign="+"), *counts, str(entry["difference"]["n"])])
    return rows


def shown(mean: dict[str, Any], sign: str = "") -> str:
    """`0.251 [0.240, 0.262]`, or the mean alone where nothing is known of its interval."""
    digits = f"{sign}.{_digits(mean)}f"
    if mean["low"] is None or mean["high"] is None:
        return f"{mean['accuracy']:{digits}}"
    return f"{mean['accuracy']:{digits}} [{mean['low']:{digits}}, {mean['high']:{digits}}]"


def _digits(mean: dict[str, Any]) -> int:
    """So many that the interval has two digits that count, three at least and six at most."""
    if mean["low"] is None or mean["high"] is None or mean["high"] <= mean["low"]:
        return 3
    return min(6, max(3, 2 - math.floor(math.log10(mean["high"] - mean["low"])) - 1))


def markdown(scores: Sequence[dict[str, Any]], paired: Sequence[dict[str, Any]]) -> str:
    """The tables as a page, with what they were measured with."""
    sets = dict.fromkeys(entry["prompt_set"] for entry in scores)
    parts = [f"## {name} prompts\n\n{_markdown_table(score_cells(scores, name))}" for name in sets]
    if paired:
        parts.append(f"## Prompt by prompt\n\n{_markdown_table(comparison_cells(paired))}")
    parts.append("## Measured with\n\n" + "".join(f"* {line}\n" for line in facts(scores)))
    note = "Mean [95 % bootstrap interval]; `n` counts prompts, or concepts where several prompts ask for one.\n"
    return "\n".join(["# Variants\n", note, *parts])


def facts(scores: Sequence[dict[str, Any]]) -> list[str]:
    """What the numbers depend on, once each: prompts, seed, models and scorers by their digests."""
    found: dict[str, None] = {}
    for entry in scores:
        settings = entry["settings"]
        found[f"prompts {entry['prompt_set']}: {settings['num_prompts']}, sha256 {settings['prompts'][:16]}"] = None
        found[f"seed {settings['seed']}"] = None
        found[f"checkpoint {settings['checkpoint']}: sha256 {settings['teacher'][:16]}"] = None
        if "adapter" in settings:
            found[f"adapter {settings['row']}: sha256 {settings['adapter'][:16]}"] = None
        if "lora" in settings:
            found[f"LoRA of {settings['sampler']}: sha256 {settings['lora'][:16]}"] = None
        found[f"scorer {entry['scorer']}: sha256 {settings['scorer_weights'][:16]}"] = None
    return sorted(found)


def _markdown_table(cells: Cells) -> str:
    head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


def _distinct(lines: Sequence[Line], *names: str) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(tuple(line[name] for name in names) for line in lines))


def _of(lines: Sequence[Line], **wanted: str) -> list[Line]:
    return [line for line in lines if all(line[name] == value for name, value in wanted.items())]
