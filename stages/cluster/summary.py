"""The summary of a caching run: what is in the cache, what was left out and why, and whether that is a failure."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_tools.tables import human_seconds
from pea.cache import Cache
from pea.cache.removals import REASON as REMOVED
from pea.cache.totals import totals
from pea.config import CacheConfig
from pea.corpus.reasons import NO_DESCRIPTION
from pea.errors import CacheError, LocationMissingError
from pea.file_names import CACHE_SUMMARY
from pea.plurals import count_of
from pea.storage import Location


def summarize(
    directory: Path | Location,
    num_collected: int,
    failed: Mapping[str, str],
    seconds: float,
    stage_seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Write ``run_summary.json`` into the cache's folder and return it; seconds add up over resumed runs."""
    place = Location.parse(directory) / CACHE_SUMMARY
    try:
        previous = json.loads(place.read_text())
    except (LocationMissingError, ValueError):
        previous = {}
    stages = Counter(previous.get("stage_seconds", {})) + Counter(stage_seconds)
    found = totals(Cache.open(directory, partial=True))
    summary = {
        "tars": found["tars"],
        "samples": found["samples"],
        "records": found["records"],
        "bytes": found["bytes"],
        "dropped": dict(sorted((Counter(found["dropped"]) + Counter(found["dropped_later"])).items())),
        **({"caption_tables": found["caption_tables"]} if "caption_tables" in found else {}),
        "failed": dict(sorted(failed.items())),
        "seconds": round(previous.get("seconds", 0.0) + (seconds if num_collected else 0.0), 3),
        "stage_seconds": {name: round(value, 3) for name, value in sorted(stages.items())},
    }
    place.write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def describe(summary: Mapping[str, Any], seconds: float) -> str:
    """One line for a person, of a run that took so many seconds."""
    num_dropped = sum(summary["dropped"].values())
    reasons = ", ".join(f"{reason} {count}" for reason, count in summary["dropped"].items())
    dropped = f"; dropped {num_dropped} ({reasons})" if num_dropped else ""
    if tables := summary.get("caption_tables"):
        dropped += (
            f"; caption tables: {tables['of_samples']:,} of samples, "
            f"{count_of(tables['missing'], 'sample')} that they lack, {tables['of_no_sample']:,} of no sample"
        )
    former = summary["seconds"] - seconds
    all_runs = f" ({human_seconds(summary['seconds'])} with earlier runs)" if former > 1 else ""
    return (
        f"{count_of(summary['samples'], 'sample')}, {count_of(summary['records'], 'record')}, "
        f"{summary['bytes'] / 1e6:,.1f} MB in {human_seconds(seconds)}{all_runs}{dropped}"
    )


def check(directory: Path | Location, summary: Mapping[str, Any], config: CacheConfig) -> None:
    """A run that lost a tar, or dropped more samples than allowed, has failed.

    Samples that were taken down are not lost, nor are culture images without a description.

    Raises:
        CacheError: it has.
    """
    if summary["failed"]:
        raise CacheError(
            f"{count_of(len(summary['failed']), 'tar')} failed",
            where=directory,
            got=" | ".join(f"{tar}: {error}" for tar, error in summary["failed"].items()),
            remedy="The finished shards are kept; remove the cause and run the same command again.",
        )
    lost_elsewhere = (REMOVED, NO_DESCRIPTION)
    dropped = {reason: count for reason, count in summary["dropped"].items() if reason not in lost_elsewhere}
    num_dropped = sum(dropped.values())
    share = num_dropped / max(1, num_dropped + summary["samples"])
    if share > config.max_dropped_fraction:
        raise CacheError(
            "too many samples were dropped",
            where=directory,
            expected=f"at most {config.max_dropped_fraction:.2%} (cache.max_dropped_fraction)",
            got=f"{share:.2%}: " + ", ".join(f"{reason} {count}" for reason, count in dropped.items()),
            remedy=f"`pea inspect ls {directory} --dropped` names them. Finished shards are kept: if this is as it "
            f"should be, run the same command with cache.max_dropped_fraction={math.ceil(1000 * share) / 1000:g}.",
        )
