"""What a completion record may say: kinds and bounds of every entry, and sums that must agree."""

from __future__ import annotations

from typing import Any

from pea.cache import strict_json as must

_MOST_BINS = 1 << 16
_name = must.plain_name
_key = must.text(4096)
_count = must.count()
_counts = must.map_of(must.text(256), _count, 4096)
CAPTION_TABLES = ("of_samples", "missing", "of_no_sample")
"""What became of captions from tables beside the tars; see ``pea.corpus.caption_tables.CaptionsBeside.counts``."""
caption_tables = must.fields(dict.fromkeys(CAPTION_TABLES, _count))
_sha256 = must.text(64, "[0-9a-f]{64}")
_about = {"format_version": must.count(99), "tar": _name, "part": must.text(8, "p[0-9]{3,7}")}
_summary = must.fields(
    {
        **_about,
        "kind": must.one_of("whole", "draws", "blocks", "queries"),
        "draws": must.items(must.count(1 << 20), must.count(1 << 20)),
        "store": _name,
        "content": _sha256,
        "num_records": _count,
        "num_samples": _count,
        "num_bytes": _count,
        "buckets": must.map_of(_name, must.fields({"num_samples": _count, "num_records": _count}), 4096),
        "languages": _counts,
        "arrays": must.map_of(must.text(1024), must.items(_count, _count), 1 << 16),
        "dropped": _counts,
        "num_caption_dropped": _count,
        "timesteps": must.list_of(_count, _MOST_BINS),
    },
    {"caption_tables": caption_tables},
    others=True,
)
_withdrawn = must.fields({**_about, "withdrawn": must.text(4096)})
_record = must.fields(
    {
        "summary": must.anything,
        "summary_sha256": _sha256,
        "files": must.map_of(must.plain_path, must.items(_count, must.text(64, "[0-9a-f]{8}([0-9a-f]{56})?"))),
        "kept": must.map_of(_name, must.list_of(_key), 4096),
        "dropped": must.list_of(must.items(_key, must.text(256), must.text())),
    }
)


def check_summary(summary: Any) -> None:
    """Make sure that a summary is one.

    Raises:
        ValueError: it is not; names the entry.
    """
    if isinstance(summary, dict) and "withdrawn" in summary:
        _withdrawn(summary, "summary")
        return
    _summary(summary, "summary")
    first, last = summary["draws"]
    if first > last:
        raise ValueError(f"summary.draws: expected first <= last, got {first} and {last}")


def check_record(raw: Any) -> None:
    """Make sure that a record is one, and that its sums agree.

    Raises:
        ValueError: it is not; names the entry.
    """
    _record(raw, "record")
    summary = raw["summary"]
    check_summary(summary)
    if "withdrawn" in summary:
        return
    if not raw["kept"].keys() <= summary["buckets"].keys():
        raise ValueError("record.kept: buckets that the summary does not have")
    if summary["num_samples"] != sum(map(len, raw["kept"].values())):
        raise ValueError("record.kept: another number of samples than the summary has")
    if summary["num_bytes"] != sum(size for size, _ in raw["files"].values()):
        raise ValueError("record.files: another number of bytes than the summary has")
