"""How far a run is, from what lies in its storage: caches, who is writing them, training, scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pea.cache import Cache
from pea.cache.manifest import FILE_NAME as MANIFEST
from pea.cache.totals import totals
from pea.config import Config, load_config
from pea.config.yaml_text import parse_yaml
from pea.errors import PeaError
from pea.file_names import METRICS, MODEL_CONFIG, RUN_CONFIG, TRAIN_LOG, TRAIN_SUMMARY
from pea.storage import Location
from pea.storage.leases import living_below
from pea.training.recipe import with_recipe

_RECENT = 32
"""Parts that the present rate is taken from."""
_REQUESTS = 32
"""Questions to a bucket at a time."""
Facts = dict[str, Any]


def run_status(config: Config) -> Facts:
    """Everything that is known of a run's stages, ready for JSON; a stage that has not begun is null.

    Raises:
        CacheError: a manifest or completion record is damaged.
        StorageError: the storage cannot be read.
    """
    corpora = config.corpora.names
    writers = _run_writers(config)
    return {
        "run_dir": str(config.run_dir),
        "writers": writers,
        "caches": {name: cache_status(Location.parse(config.cache_dir(name))) for name in corpora},
        "training": training_status(config, [owner for owner in writers if "train" in owner.partition(" by ")[0]]),
        "evaluation": _scores(Location.parse(config.run_dir) / METRICS),
    }


def _run_writers(config: Config) -> list[str]:
    """Who works on a run folder in a bucket, in a copy on a machine of its own; on a disk, stages have their leases."""
    return _owners(config.run_dir) if isinstance(config.run_dir, Location) else []


def cache_status(directory: Location) -> Facts | None:
    """Of one cache: shards, samples, records, bytes, drops by reason, writers, rate and time left.

    The rate is that of the parts that were finished last, and is known while somebody writes.
    """
    if not (directory / MANIFEST).exists():
        return None
    cache = Cache.open(directory, partial=True)
    unfinished = cache.plan()
    found = totals(cache)
    writers = _writers(cache, sorted({plan.tar for plan in unfinished}))
    rate = parts_per_second(_times(cache)) if writers else None
    finished = len(cache.manifest.parts) - len(unfinished)
    records_each = found["records"] / finished if finished else 0.0
    return {
        "place": str(directory),
        "parts": {"finished": finished, "all": len(cache.manifest.parts)},
        "samples": found["samples"],
        "records": found["records"],
        "bytes": found["bytes"],
        "dropped": found["dropped"],
        "writers": writers,
        "records_per_s": None if rate is None else rate * records_each,
        "seconds_left": None if not rate else len(unfinished) / rate,
    }


def parts_per_second(times_s: Sequence[float]) -> float | None:
    """The rate at which the last parts were finished, from the times of all of them; None: too few to tell."""
    recent = sorted(times_s)[-_RECENT:]
    if len(recent) < 2 or recent[-1] <= recent[0]:
        return None
    return (len(recent) - 1) / (recent[-1] - recent[0])


def _times(cache: Cache) -> list[float]:
    """When each finished part was published, by the store's clock."""
    records = [record for _, record in cache.newest_records() if record is not None]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return [status.modified_s for status in pool.map(Location.status, records)]


def _writers(cache: Cache, tars: Sequence[str]) -> list[str]:
    """Who is writing parts of these tars, as their leases say."""
    with ThreadPoolExecutor(_REQUESTS) as pool:
        found = pool.map(lambda tar: _owners(cache.shard_dir(tar)), tars)
        return sorted(owner for owners in found for owner in owners)


def _owners(folder: Location) -> list[str]:
    return [str(owner) for owner in living_below(folder).values()]


def training_status(config: Config, elsewhere: Sequence[str] = ()) -> Facts | None:
    """Of the training: phase, step, the last losses, speed and time left, and who is at it.

    ``elsewhere``: who trains in a copy of the run folder.
    """
    folder = Location.parse(config.adapter_dir)
    row = _last_row(Location.parse(config.training_dir) / TRAIN_LOG)
    owners = [*_owners(folder), *elsewhere]
    done = None if owners else _summary(config, row)
    if done is None:
        config = _as_begun(config)
        kinds, steps = [str(phase.kind) for phase in config.train.all_phases], planned_steps(config)
    else:
        kinds, steps = [str(phase["kind"]) for phase in done["phases"]], int(done["steps"])
    published = (folder / MODEL_CONFIG).exists()
    if row is None and not owners and not published:
        return None
    status: Facts = {"place": str(folder), "published": published, "writers": owners, "steps": steps, "step": 0}
    if row is not None:
        number = int(row.get("phase", 1))
        kind = kinds[number - 1] if number <= len(kinds) else "?"
        seconds = row.get("seconds", 0.0)
        status |= {"step": int(row["step"]), "phase": f"{number} of {len(kinds)} ({kind})", "loss": row.get("loss")}
        status |= {"rows_per_s": row.get("samples_per_s"), "seconds": seconds}
        left = 0.0 if steps is None else seconds / max(1, row["step"]) * (steps - row["step"])
        status["seconds_left"] = left if owners and left > 0 else None
    return status


def _as_begun(config: Config) -> Config:
    """With the settings of training that the run folder holds: a living run may have been begun with others."""
    saved = Location.parse(config.run_dir) / RUN_CONFIG
    try:
        begun = load_config((), settings=[parse_yaml(saved.read_text(), where=str(saved))])
    except (PeaError, ValueError):
        return config
    return config.model_copy(update={"train": begun.train})


def _summary(config: Config, row: Facts | None) -> Facts | None:
    """Of the training that is done, whatever the configuration says now; beside a living one, an earlier one's."""
    summary = Location.parse(config.training_dir) / TRAIN_SUMMARY
    found: Facts | None = json.loads(summary.read_text()) if summary.exists() else None
    is_former = found is not None and row is not None and row["step"] > found["steps"]
    return None if is_former else found


def planned_steps(config: Config) -> int | None:
    """Optimizer steps of all phases, by their rules where they are not named; None: there is no cache to count in yet.

    One process is assumed.
    """
    if all(phase.train.steps is not None for phase in config.train.all_phases):
        return sum(phase.train.steps or 0 for phase in config.train.all_phases)
    directory = Location.parse(config.cache_dir("parallel"))
    if not (directory / MANIFEST).exists():
        return None
    cache = Cache.open(directory, partial=True)
    width = config.student.adapter.hidden_size
    phases = [with_recipe(phase, width, 1, lambda: cache.num_samples) for phase in config.train.all_phases]
    return sum(phase.train.steps or 0 for phase in phases)


def _last_row(path: Location) -> Facts | None:
    if not path.exists():
        return None
    for line in reversed(path.read_text().splitlines()):
        try:
            row = json.loads(line)
        except ValueError:  # half-written
            continue
        if isinstance(row, dict) and "step" in row:
            return row
    return None


def _scores(path: Location) -> Facts | None:
    """The adapter's scores; empty where images were drawn and nothing has scored them, None where none were drawn."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
    except ValueError:
        return None
    found = {
        name: value for name, value in content.items() if name.startswith("adapter") and not isinstance(value, dict)
    }
    return found if found or content.get("drawings") else None
