"""Folders and buckets: what is read is there, and what is written to can be written to as we write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pea.config import Config, ScorersConfig
from pea.corpus.places import expand_tars
from pea.corpus.rules import TextSource
from pea.corpus.text_columns import open_texts
from pea.errors import PeaError
from pea.foreign_text import visible
from pea.plurals import count_of
from pea.storage.hub import is_hub_id
from pea.storage.location import Location
from pea.storage.probe import Probe, probe
from pea.storage.work import VARIABLE, work_folder
from stages.diagnosis.finding import Finding

_GIB = 1 << 30
_LEAST_BYTES = 100 << 20
_FEW_BYTES = 5 * _GIB
_FEW_FILES = 10_000
_SKEW_S = 5.0
_VOLATILE = ("tmpfs", "ramfs")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


def written_places(config: Config | None) -> dict[str, Location]:
    """Name in the configuration -> place that the stages write to."""
    if config is None:
        return {"this folder": Location.parse(Path.cwd())}
    places = {"run_dir": Location.parse(config.run_dir)}
    if config.cache_root is not None:
        places["cache_root"] = Location.parse(config.cache_root)
    return places


def look_at_written_places(config: Config | None) -> Iterator[Finding]:
    """Run folder, caches, and the folder for temporary files: tried out."""
    for name, place in written_places(config).items():
        yield from describe(name, place, probe(place))
    temporary = Location.parse(tempfile.gettempdir())
    yield from _problems_or_room("temporary files", temporary)
    if any(not place.is_local for place in written_places(config).values()):
        yield from _problems_or_room(f"copies of buckets ({VARIABLE})", Location.parse(work_folder()))


def _problems_or_room(name: str, place: Location) -> Iterator[Finding]:
    found = probe(place)
    problems = [each for each in describe(name, place, found) if each.level == "problem"]
    yield from problems or [Finding(name, "ok", f"{place}, {_room(found)}")]


def describe(name: str, place: Location, found: Probe) -> Iterator[Finding]:
    """The findings about one place."""
    where = str(place) if found.tried == place else f"{place} (to be made in {found.tried})"
    if found.refused:
        what = "; ".join(f"{operation}: {why}" for operation, why in found.refused.items())
        yield Finding(name, "problem", f"{where} cannot be used: {what}", _remedy(name, found))
        return
    what = f"{where}: {_room(found)}; written, created only if absent, replaced, listed, deleted"
    if found.free_bytes is not None and found.free_bytes < _LEAST_BYTES:
        yield Finding(name, "problem", what, "Make room.")
    elif found.free_bytes is not None and found.free_bytes < _FEW_BYTES:
        yield Finding(name, "warning", what, "Make room: `pea plan` says how much a cache takes.")
    elif found.free_files is not None and found.free_files < _FEW_FILES:
        yield Finding(name, "warning", f"{what}; room for only {count_of(found.free_files, 'file')}", "Delete files.")
    elif found.file_system in _VOLATILE:
        yield Finding(name, "warning", what, "This is memory: it is gone with the machine. Choose a disk.")
    elif found.tried.is_local and found.is_shared:
        remedy = "A power cut or a lost server may cost what was just written: run `pea inspect check` after one."
        yield Finding(name, "warning", f"{what}; a network file system", remedy)
    else:
        yield Finding(name, "ok", what)
    if found.clock_ahead_s is not None and abs(found.clock_ahead_s) > _SKEW_S:
        off = f"the clock of the storage is {found.clock_ahead_s:+.0f} s from this machine's"
        yield Finding(name, "warning", off, "Set both by NTP: leases expire by the clock.")


def _remedy(name: str, found: Probe) -> str:
    setting = name if name in ("run_dir", "cache_root") else "another folder"
    if "write" in found.refused:
        return f"Give {setting} where this user may write."
    return f"Give {setting} on a storage that keeps to this: two writers of one shard would not notice each other."


def _room(found: Probe) -> str:
    if found.free_bytes is None:
        return found.tried.scheme
    kind = found.file_system or "an unknown file system"
    return f"{kind}, {found.free_bytes / _GIB:.1f} GiB free"


def look_at_read_places(config: Config) -> Iterator[Finding]:
    """Models, tars and prompts that the configuration names."""
    models: dict[str, Any] = {
        "teacher.checkpoint": config.teacher.checkpoint,
        "teacher.config": config.teacher.config,
        "teacher.unet": config.teacher.unet,
        "teacher.vae": config.teacher.vae,
    }
    models |= {"evaluate.judge": config.evaluate.judge, "evaluate.clip": config.evaluate.clip}
    scorers = config.evaluate.scorers
    models |= {f"evaluate.scorers.{name}": getattr(scorers, name) for name in ScorersConfig.model_fields}
    student = [("student.encoder", path) for path in config.student.places]
    for name, path in [*models.items(), *student]:
        if path is not None and is_hub_id(path):
            yield Finding(name, "ok", f"{path}, of the hub")
        elif path is not None:
            yield _there(name, Location.parse(path), needed=not name.startswith("evaluate"))
    for name, path in config.evaluate.prompts.items():
        yield _there(f"evaluate.prompts.{name}", Location.parse(path), needed=False)
    for corpus in config.corpora.names:
        settings = config.corpora.source(corpus)
        texts = settings.text_source
        yield _texts(texts) if texts else _tars(f"corpora.{corpus}", settings.tars)


def _there(name: str, place: Location, *, needed: bool) -> Finding:
    try:
        if place.exists():
            return Finding(name, "ok", str(place))
        what = f"{place} is not there"
    except PeaError as error:
        what = str(error)
    remedy = "Correct the path, or run the stage that makes it." if needed else "Only `pea eval` needs it."
    return Finding(name, "problem" if needed else "warning", what, remedy)


def _texts(texts: TextSource) -> Finding:
    try:
        table, fields, _ = open_texts(texts)
    except PeaError as error:
        return Finding("corpora.parallel", "problem", str(error))
    return Finding("corpora.parallel", "ok", f"texts in {table}: {', '.join(fields.values())}")


def _tars(name: str, patterns: tuple[str, ...]) -> Finding:
    try:
        tars = expand_tars(patterns)
        unreadable = [each for each in tars if each.location.is_local and not os.access(each.location, os.R_OK)]
        tars[0].location.read_bytes(0, 1)
        size = sum(each.location.status().size_bytes for each in tars if each.location.is_local)
    except (PeaError, OSError) as error:
        return Finding(name, "problem", str(error))
    if unreadable:
        shown = f"{len(unreadable)} of {len(tars)} tars may not be read, such as {visible(str(unreadable[0]))}"
        return Finding(name, "problem", shown, "Give this user the right to read them.")
    return Finding(name, "ok", count_of(len(tars), "tar") + (f", {size / _GIB:.2f} GiB on disks" if size else ""))


def look_at_hub() -> Finding:
    """How the hub would be reached, which models named ``org/name@revision`` are downloaded from."""
    offline = [name for name in _OFFLINE if os.environ.get(name, "").lower() in ("1", "true", "yes", "on")]
    token = "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "HF_TOKEN is not set"
    said = f"offline by {', '.join(offline)}" if offline else "online"
    return Finding("hub", "ok", f"{said}; {token}; only models named org/name@revision are downloaded")
