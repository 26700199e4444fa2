"""Sizes and times of a run, and what it takes to make it again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from data_tools.tables import human_seconds
from pea.cache.manifest import FILE_NAME as MANIFEST
from pea.cache.manifest import read_manifest
from pea.config import Config
from pea.copies import as_stored
from pea.errors import PeaError
from pea.file_names import CACHE_SUMMARY, MODEL_CONFIG, RUN_CONFIG
from pea.plurals import count_of
from pea.storage import Location

_PACKAGES = ("torch", "diffusers", "transformers", "zarr", "tensorstore", "ray")
Fact = dict[str, str]


def sizes_and_times(
    config: Config, metrics: Mapping[str, Any], summary: Mapping[str, Any], *, scored: bool
) -> list[Fact]:
    """What the stages noted of themselves; what a stage did not do here is absent. `scored`: whether anything was."""
    facts = []
    for corpus in config.corpora.names:
        noted = read_json(config.cache_dir(corpus) / CACHE_SUMMARY)
        if noted:
            filled = f"filled in {human_seconds(noted['seconds'])}"
            note = f"{count_of(noted['samples'], 'sample')}, {count_of(noted['records'], 'record')}, {filled}"
            facts.append(_fact(f"cache, {corpus}", f"{noted['bytes'] / 1e6:,.1f} MB", note))
    if "cache.bytes_per_record" in metrics:
        note = "everything on disk, compressed"
        facts.append(_fact("bytes per record", f"{metrics['cache.bytes_per_record']:,.0f}", note))
    if summary:
        note = f"{count_of(summary['steps'], 'step')}, {summary['samples_per_s']:,.0f} rows/s"
        facts.append(_fact("training", human_seconds(summary["seconds"]), note))
    if "seconds.evaluate" in metrics:
        done = "drawing and scoring" if scored else "drawing"
        facts.append(_fact("evaluation", human_seconds(metrics["seconds.evaluate"]), done))
    return facts


def how_to_repeat(
    config: Config,
    details: Mapping[str, Mapping[str, Any]],
    drawings: Mapping[str, Mapping[str, Any]],
    summary: Mapping[str, Any],
) -> list[Fact]:
    """Commit, versions, seeds, settings of the drawing and identities; versions are those that wrote the page."""
    facts = []
    if (config.run_dir / RUN_CONFIG).exists():
        place = as_stored(str(config.run_dir / RUN_CONFIG))
        facts.append(_fact("configuration", place, "every setting, as it was resolved"))
    commit = _commit()
    if commit:
        facts.append(_fact("commit", commit, "of the program that wrote this page"))
    facts.append(_fact("versions", ", ".join(_versions()), "where this page was written"))
    directory = Location.parse(config.cache_dir("parallel"))
    seeds = {"draws and noise of the cache": config.cache.seed} if (directory / MANIFEST).exists() else {}
    seeds |= {"weights and order of the training": config.train.seed} if summary else {}
    if seeds:
        facts.append(_fact("seeds", ", ".join(map(str, seeds.values())), "; ".join(seeds)))
    shared = _shared_settings([*drawings.values(), *(detail.get("settings", {}) for detail in details.values())])
    if shared:
        facts.append(_fact("drawn with", shared, "the same for every row"))
    identity = read_json(config.adapter_dir / MODEL_CONFIG).get("cache_identity")
    if identity:
        facts.append(_fact("cache identity", str(identity), "that the adapter was trained from"))
    elif (directory / MANIFEST).exists():
        facts.append(_fact("cache identity", read_manifest(directory).identity.digest, "of the parallel cache"))
    return facts


def _shared_settings(settings: Sequence[Mapping[str, Any]]) -> str:
    """What all drawings and scores have in common."""
    names = {
        "scheduler": "scheduler",
        "num_inference_steps": "denoising steps",
        "guidance_scale": "guidance",
        "seed": "seed",
    }
    parts = []
    for key, name in names.items():
        values = {each[key] for each in settings if key in each}
        if len(values) == 1:
            parts.append(f"{name} {values.pop()}")
    return ", ".join(parts)


def _versions() -> list[str]:
    found = [f"Python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"]
    for package in ("pea-cache", *_PACKAGES):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """The commit of the program's own repository, and whether files differ from it; empty outside of one."""
    root = Path(__file__).parents[2]
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return ""
    try:
        head, changes = (
            subprocess.run(
                [git, "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + (" with uncommitted changes" if changes else "")


def read_json(path: Path | Location) -> dict[str, Any]:
    """A JSON object that another stage left; empty where there is none.

    Raises:
        StorageError: the file is there and cannot be read.
    """
    place = Location.parse(path)
    if not place.exists():
        return {}
    try:
        content = json.loads(place.read_text())
    except ValueError as error:
        raise PeaError("cannot read this file", where=place, expected="a JSON object", got=error) from None
    return content if isinstance(content, dict) else {}


def _fact(name: str, value: str, note: str) -> Fact:
    return {"name": name, "value": value, "note": note}
