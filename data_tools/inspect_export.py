"""``pea inspect export``: a page to browse a cache's samples, and to show to others."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_tools.inspect_info import collect
from data_tools.inspect_show import (
    Found,
    Pixels,
    decode_latent,
    enlarge,
    false_colours,
    feature_blocks,
    feature_maps,
    find_sample,
)
from data_tools.pages import render_page
from data_tools.report_pictures import data_url
from data_tools.tables import human_bytes
from pea.cache import Cache
from pea.files import write_text

LEAD = (
    "What the cache holds: its sizes, the timesteps that it covers, and some of its samples, with the teacher's "
    "feature maps in false colours, as far as their sketches keep them."
)
DRAWS_SHOWN = 2


def export(directory: Path, path: Path, *, num_samples: int, seed: int, checkpoint: Path | None) -> int:
    """Write the page; returns the number of samples shown, drawn at random with ``seed``.

    ``checkpoint``: a pipeline whose VAE decodes the latents; without it they are shown in false colours.

    Raises:
        CacheError: the cache is not complete, or damaged.
    """
    cache = Cache.open(directory)
    facts = collect(directory)
    samples = [_sample(cache, name, checkpoint) for name in _choose(cache, num_samples, seed)]
    page = render_page(
        "page_export.html",
        title=f"Cache {directory.resolve().parent.name}/{directory.resolve().name}",
        lead=LEAD,
        cards=list(_cards(facts)),
        sizes=_sizes(facts),
        timesteps=_timesteps(facts),
        counts={**facts["languages"], **facts["samples"]["reasons"]},
        identity=sorted((name, str(value)) for name, value in facts["identity"].items() if name != "corpus.tars"),
        samples=samples,
    )
    write_text(path, page)
    return len(samples)


def _choose(cache: Cache, count: int, seed: int) -> list[str]:
    names = [f"{shard.tar}/{key}" for shard in cache.shards for bucket in shard.buckets.values() for key in bucket.keys]
    return sorted(random.Random(seed).sample(names, min(count, len(names))))


def _cards(facts: dict[str, Any]) -> Iterator[dict[str, str]]:
    yield {"label": "samples", "value": f"{facts['samples']['kept']:,}"}
    if facts["records"]["all"]:
        yield {"label": "records", "value": f"{facts['records']['all']:,}"}
        yield {"label": "per record", "value": human_bytes(facts["bytes"]["per_record"])}
        yield {"label": "without caption", "value": f"{facts['records']['caption_dropped_share']:.1%}"}
    yield {"label": "on disk", "value": human_bytes(facts["bytes"]["stored"])}
    yield {"label": "samples dropped", "value": f"{facts['samples']['dropped_share']:.2%}"}


def _sizes(facts: dict[str, Any]) -> list[dict[str, str]]:
    groups = facts["bytes"]["groups"]
    largest = max(each["stored"] for each in groups.values())
    return [
        {"name": name, "stored": human_bytes(each["stored"]), "percent": f"{100 * each['stored'] / largest:.1f}"}
        for name, each in sorted(groups.items(), key=lambda item: -item[1]["stored"])
    ]


def _timesteps(facts: dict[str, Any]) -> list[dict[str, str]]:
    counts, width = facts["timesteps"]["counts"], facts["timesteps"]["bin_width"]
    most = max(counts, default=0) or 1
    return [
        {"percent": f"{100 * count / most:.0f}", "label": f"{index * width} to {(index + 1) * width}: {count} records"}
        for index, count in enumerate(counts)
    ]


def _sample(cache: Cache, name: str, checkpoint: Path | None) -> dict[str, Any]:
    found = find_sample(cache, name)
    latents = found.read("latents_mean")
    picture = false_colours(latents[0]) if checkpoint is None else decode_latent(latents, checkpoint)
    captions = {code: text for code in found.bucket.languages if (text := found.bucket.captions(code)[found.row])}
    return {"name": name, "captions": captions, "image": _url(picture), "draws": list(_draws(found))}


def _draws(found: Found) -> Iterator[dict[str, Any]]:
    count = min(found.bucket.draws_per_sample, DRAWS_SHOWN)
    if not count:
        return
    maps = {block: feature_maps(found, block) for block in feature_blocks(found.bucket)}
    timesteps, dropped = found.read("timestep"), found.read("caption_dropped")
    for draw in range(count):
        figures = [{"label": "noise_pred", "image": _url(false_colours(found.read("noise_pred")[draw]))}]
        figures += [{"label": block, "image": _url(false_colours(values[draw]))} for block, values in maps.items()]
        label = f"t = {timesteps[draw]}" + (", caption dropped" if dropped[draw] else "")
        yield {"label": label, "figures": figures}


def _url(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    enlarge(pixels).save(buffer, "PNG")
    return data_url(buffer.getvalue())
