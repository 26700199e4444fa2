"""What the cache holds of one image: its decoded latents, and what is kept of the teacher's answers to each draw."""

from __future__ import annotations

from typing import Any

from data_tools.report.pictures import decoded_sample, heat_map, sketch_map
from pea.cache import Cache
from pea.cache.manifest import FILE_NAME as MANIFEST
from pea.config import Config
from pea.storage import Location

DRAWS_SHOWN = 4


def cached_sample(config: Config) -> dict[str, Any] | None:
    """Pictures of the first sample of the cache: its decoded latents, and what is kept of each draw.

    None: there is no cache, as where the adapter was converted, or nothing in it.
    """
    if not (Location.parse(config.cache_dir("parallel")) / MANIFEST).exists():
        return None
    cache = Cache.open(config.cache_dir("parallel"), partial=True)
    bucket = next((b for shard in cache.shards for b in shard.buckets.values() if b.num_samples), None)
    if bucket is None:
        return None
    sample = bucket.read(["latents_mean"], 0, 1)["latents_mean"][0]
    count = min(DRAWS_SHOWN, bucket.draws_per_sample)
    answer = "noise_pred" if "noise_pred" in bucket.arrays else "noise_pred/values"
    features = [n for n in bucket.arrays if n.startswith("features/") and len(bucket.arrays[n].shape) > 0]
    features = [name for name in features if name.rsplit("/", 1)[-1] != "squared_norm"]
    rows = bucket.read(["timestep", answer, *features], 0, count)
    records = [[{"image": decoded_sample(config, sample), "width": 112, "label": "the VAE's latents, decoded"}]]
    for draw in range(count):
        shown = rows[answer][draw]
        picture = heat_map(shown[0]) if answer == "noise_pred" else sketch_map(shown)
        figures = [{"image": picture, "width": 96, "label": f"t = {rows['timestep'][draw]}"}]
        for name in features:
            block = name.split("/")[1]
            figures.append({"image": sketch_map(rows[name][draw]), "width": 96, "label": block})
        records.append(figures)
    shown_as = "its first channel" if answer == "noise_pred" else "its sketch"
    caption = bucket.captions(language)[0] if (language := config.student.languages[0]) in bucket.languages else ""
    said = [f"Caption: “{caption}”."] if caption else []
    draws = "The only draw" if count == 1 else "One row per draw"
    blocks = f", then the sketch of each block's output ({_sketch_name(config)})" if features else ""
    said.append(f"{draws}: the noise prediction at its timestep ({shown_as}){blocks}.")
    return {"note": " ".join(said), "records": records}


def _sketch_name(config: Config) -> str:
    settings = config.cache.sketch.model_dump()
    return " ".join(str(value) for value in settings.values())
