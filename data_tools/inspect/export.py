"""``pea inspect export``: a page to browse a cache's samples, and to show to others."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data_tools.inspect.info import card_line, collect
from data_tools.inspect.show import Found, Pixels, enlarge, false_colours, feature_blocks, feature_maps, find_sample
from data_tools.pages import render_page
from data_tools.report.pictures import data_url
from data_tools.tables import human_bytes
from pea.cache import Cache
from pea.plurals import count_of
from pea.storage.durable import write_text
from pea.storage.location import Location

if TYPE_CHECKING:  # loads diffusers
    from data_tools.inspect.teacher_view import TeacherView

LEAD = "The teacher's answers, computed once and kept: what it was asked, what it answered, and how much is stored."
IMAGES_LEAD = "Images and captions that are kept for training, without answers of the teacher."
DRAWS_SHOWN = 2


def export(
    directory: str | Path | Location, path: Path, *, num_samples: int, seed: int, checkpoint: Path | None
) -> int:
    """Write the page; returns the number of samples shown, drawn at random with ``seed``.

    ``checkpoint``: a pipeline whose VAE decodes the latents; without it they are shown in false colours.

    Raises:
        CacheError: the cache is not complete, or damaged.
    """
    cache = Cache.open(directory)
    facts = collect(directory)
    view = _view(cache, checkpoint)
    samples = [_sample(cache, name, view) for name in _choose(cache, num_samples, seed)]
    page = render_page(
        "inspect/page_export.html",
        title=_title(cache.directory.resolve()),
        lead=LEAD if facts["records"]["all"] else IMAGES_LEAD,
        cards=list(_cards(facts)),
        sizes=_sizes(facts),
        timesteps=_timesteps(facts),
        last_timestep=len(facts["timesteps"]["counts"]) * facts["timesteps"]["bin_width"] - 1,
        languages=facts["languages"],
        dropped=facts["samples"]["reasons"],
        note=_note(samples, facts["samples"]["kept"], decoded=view is not None),
        identity=sorted((name, str(value)) for name, value in facts["identity"].items() if name != "corpus.tars"),
        corpus=[card_line(card) for card in facts.get("cards", ())],
        samples=samples,
    )
    write_text(path, page)
    return len(samples)


def _note(samples: Sequence[Mapping[str, Any]], kept: int, *, decoded: bool) -> str:
    """Which samples these are, and how their pictures are to be read."""
    shown = len(samples)
    number = count_of(shown, "sample") if shown == kept else f"{shown} of {kept:,}, chosen at random"
    labels = {figure["label"] for sample in samples for draw in sample["draws"] for figure in draw["figures"]}
    said = [f"{number}."]
    if "shown" in labels:
        said.append("shown: the noised image that the teacher was asked about; seen in it: the image that follows from")
        said[-1] += " its answer, decoded by the VAE."
    false_coloured = [] if decoded else ["the latents"]
    if "noise_pred" in labels:
        false_coloured.append("the teacher's prediction")
    if labels - {"shown", "seen in it", "noise_pred"}:
        false_coloured.append("each block's feature maps as far as their sketches keep them")
    return " ".join(said + ([f"In false colours: {', '.join(false_coloured)}."] if false_coloured else []))


def _title(directory: Location) -> str:
    """``runs/demo/cache/parallel`` -> ``demo: parallel corpus``."""
    parents = [name for name in str(directory).split("/")[:-1] if name not in ("cache", "")]
    return f"{parents[-1]}: {directory.name} corpus" if parents else directory.name


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
    """The larger groups of arrays; the smallest, which together make up less than 2 %, as one."""
    sizes = sorted(((each["stored"], name) for name, each in facts["bytes"]["groups"].items()), reverse=True)
    small, limit = 0, 0.02 * sum(size for size, _ in sizes)
    while sizes and small + sizes[-1][0] < limit:
        small += sizes.pop()[0]
    if small:
        sizes.append((small, "everything else"))
    per, count = (
        ("record", facts["records"]["all"]) if facts["records"]["all"] else ("sample", facts["samples"]["kept"])
    )
    return [
        {
            "name": name,
            "stored": human_bytes(size),
            "each": f"{human_bytes(size / max(1, count))} per {per}",
            "percent": f"{100 * size / max(1, sizes[0][0]):.1f}",
        }
        for size, name in sizes
    ]


def _timesteps(facts: dict[str, Any]) -> list[dict[str, str]]:
    counts, width = facts["timesteps"]["counts"], facts["timesteps"]["bin_width"]
    most = max(counts, default=0) or 1
    return [
        {
            "percent": f"{100 * count / most:.0f}",
            "label": f"{index * width} to {(index + 1) * width}: {count_of(count, 'record')}",
        }
        for index, count in enumerate(counts)
    ]


def _view(cache: Cache, checkpoint: Path | None) -> TeacherView | None:
    if checkpoint is None:
        return None
    from data_tools.inspect.teacher_view import TeacherView

    return TeacherView(cache, checkpoint)


def _sample(cache: Cache, name: str, view: TeacherView | None) -> dict[str, Any]:
    found = find_sample(cache, name)
    latents = found.read("latents_mean")
    picture = false_colours(latents[0]) if view is None else view.image(latents)
    captions = {code: text for code in found.bucket.languages if (text := found.bucket.captions(code)[found.row])}
    return {"name": name, "captions": captions, "image": _url(picture), "draws": list(_draws(found, view))}


def _draws(found: Found, view: TeacherView | None) -> Iterator[dict[str, Any]]:
    count = min(found.bucket.draws_per_sample, DRAWS_SHOWN)
    if not count:
        return
    sketched = ["noise_pred"] if any(name.startswith("noise_pred/") for name in found.bucket.arrays) else []
    maps = {block: feature_maps(found, block) for block in [*sketched, *feature_blocks(found.bucket)]}
    timesteps, dropped = found.read("timestep"), found.read("caption_dropped")
    for draw in range(count):
        pictures = {block: false_colours(values[draw]) for block, values in maps.items()}
        if "noise_pred" in found.bucket.arrays:  # and not a sketch of it
            pictures = {"noise_pred": false_colours(_noise_pred(found)[draw])} | pictures
            if view is not None:
                noised, clean = view.of_draw(found, draw)
                pictures = {"shown": noised, "seen in it": clean} | pictures
        yield {
            "timestep": int(timesteps[draw]),
            "dropped": bool(dropped[draw]),
            "figures": [{"label": label, "image": _url(pixels)} for label, pixels in pictures.items()],
        }


def _noise_pred(found: Found) -> npt.NDArray[Any]:
    """float32 [K, c, h, w], whatever it is stored as."""
    rows = found.read("noise_pred")
    if found.bucket.arrays["noise_pred"].attributes.get("bits") == "bfloat16":
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows.astype(np.float32)


def _url(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    enlarge(pixels).save(buffer, "PNG")
    return data_url(buffer.getvalue())
