"""``pea inspect verify``: make some samples again with the live models, from the tar, and compare.

Every step is repeated: decoding, VAE, English encoders, teacher, sketch. Draws must agree exactly; answers of the
models may differ in their last digits, because batches, devices and library versions do.
"""

from __future__ import annotations

import datetime
import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pea.attention.queries import decode_queries
from pea.cache import Bucket, Cache, PartPlan, Shard
from pea.cache.certificate import Certificate
from pea.cache.identity import READING, model_identity
from pea.cache.schema import FEATURES, NOISE_PRED, QUERIES
from pea.collect.decoded import BucketRows, Decoded
from pea.collect.descriptions import descriptions_for
from pea.collect.drawn_texts import drawn_samples
from pea.collect.layout import BucketLayout
from pea.collect.teacher_rows import FrozenModels
from pea.config import CacheConfig, Config
from pea.corpus.corpus_names import CorpusName
from pea.corpus.rules import TextSource
from pea.corpus.samples import ReadingRules, Sample, Tar, expand_tars, read_tar, tar_identity, tar_name
from pea.corpus.texts import text_parts
from pea.errors import CacheError, CorpusError, IdentityError
from pea.sketch.sketch import Sketch, from_numpy

_MAX_TARS = 4
_TINY = 1e-12


def verify(
    config: Config,
    corpus: CorpusName,
    *,
    num_samples: int,
    threshold: float,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Certificate:
    """Make ``num_samples`` samples, spread over up to four tars, again.

    ``threshold``: largest relative error ``|again - cached| / |cached|`` of a row that passes.

    Raises:
        IdentityError: configuration, models or tars are not those of the cache.
        CacheError, CorpusError, CheckpointError: they cannot be read.
    """
    directory = config.cache_dir(corpus)
    source = config.corpora.source(corpus)
    cache = Cache.open(directory, expect=model_identity(config, corpus), partial=True)
    rules = replace(source.reading_rules(config.cache), original_size=READING in cache.identity.fields)
    device = torch.device("cuda" if config.cache.run.device != "cpu" and torch.cuda.is_available() else "cpu")
    models = FrozenModels(config, corpus, device)
    chosen = choose_samples(cache, num_samples)
    errors: dict[str, list[float]] = defaultdict(list)
    problems: list[str] = []
    done, total = 0, sum(map(len, chosen.values()))
    for shard in cache.shards:
        wanted = chosen.get(shard.tar, [])
        for bucket, row, item in _decode(models, config, corpus, rules, shard, wanted):
            rows = _answer(models, cache, item)
            if rows is None:
                problems.append(f"{item.sample_id}: the models' answer is not finite now")
                continue
            problems += _compare(bucket, row, rows, _sketches(models.layouts[bucket.name]), errors)
            done += 1
            progress(done, total)
    if done < total:
        problems.append(f"{total - done} of {total} samples could not be made again")
    summary = {name: {"largest": max(each), "mean": sum(each) / len(each)} for name, each in sorted(errors.items())}
    problems += [
        f"{name}: relative error {each['largest']:.3g} above {threshold:g}"
        for name, each in summary.items()
        if not each["largest"] <= threshold
    ]
    samples = [f"{tar}/{key}" for tar, keys in sorted(chosen.items()) for key in sorted(keys)]
    return Certificate(cache.identity.digest, samples, summary, threshold, problems, _environment(device))


def choose_samples(cache: Cache, count: int) -> dict[str, list[str]]:
    """Tar -> keys, the same choice every time: those whose names have the smallest hash.

    Raises:
        CacheError: nothing is finished yet.
    """
    shards = sorted((shard for shard in cache.shards if shard.num_samples), key=lambda shard: _lot(shard.tar))
    if not shards:
        raise CacheError("nothing to verify: no finished shard holds a sample", where=cache.directory)
    shards = shards[: min(_MAX_TARS, count)]
    share = -(-count // len(shards))
    chosen = {}
    for shard in shards:
        keys = (key for bucket in shard.buckets.values() for key in bucket.keys)
        chosen[shard.tar] = sorted(keys, key=lambda key: _lot(f"{shard.tar}/{key}"))[:share]
    return chosen


def _lot(name: str) -> bytes:
    return hashlib.sha256(f"verify\0{name}".encode()).digest()


def _decode(
    models: FrozenModels, config: Config, corpus: CorpusName, rules: ReadingRules, shard: Shard, keys: Sequence[str]
) -> Iterator[tuple[Bucket, int, Decoded]]:
    """The chosen samples of one tar, with their place in the cache."""
    if not keys:
        return
    source, descriptions = config.corpora.source(corpus), descriptions_for(config, corpus)
    places = {key: (bucket, row) for bucket in shard.buckets.values() for row, key in enumerate(bucket.keys)}
    left = set(keys)
    if source.text_source is not None:
        for item in _drawn(models, config.cache, source.text_source, shard, left):
            yield (*places[item.key], item)
        return
    path, texts = _find_tar(expand_tars(source.tars), shard), config.corpora.texts_beside(corpus)
    beside = texts[0].beside(shard.tar, texts[1]) if texts and shard.tar_identity.captions else None
    if shard.tar_identity.captions != (beside and beside.digest):
        remedy = "Restore the table, or make a new cache."
        raise IdentityError("the captions beside the tar are not those that were cached", got=shard.tar, remedy=remedy)
    samples = read_tar(
        path,
        source.caption_fields(),
        required=() if descriptions else (source.source_language,),
        rules=rules,
        beside=None if descriptions else beside,
    )
    for each in samples:
        sample = each
        if descriptions and isinstance(each, Sample) and each.key in left:
            sample = descriptions.described(each, source.source_language)
        if isinstance(sample, Sample) and sample.key in left:
            left.remove(sample.key)
            bucket, row = places[sample.key]
            yield bucket, row, Decoded.of(sample, config.cache)
        if not left:
            return


def _drawn(
    models: FrozenModels, cache: CacheConfig, source: TextSource, shard: Shard, keys: Collection[str]
) -> Iterator[Decoded]:
    """The chosen texts of one part, drawn again."""
    part = next((part for part, same in text_parts(source) if same == shard.tar_identity), None)
    if part is None:
        raise IdentityError("the texts are not those that were cached", got=shard.tar, remedy="Restore the table.")
    plan, num_draws = shard.parts[0].plan, next(iter(shard.buckets.values())).draws_per_sample
    for item in drawn_samples(models, cache, part, replace(plan, draw_stop=num_draws), wanted=keys):
        if isinstance(item, Decoded) and item.key in keys:
            yield item


def _find_tar(paths: Iterable[Tar], shard: Shard) -> Tar:
    path = next((path for path in paths if tar_name(path) == shard.tar), None)
    if path is None:
        raise CorpusError("the tar of a cached shard is not in the configuration", got=shard.tar)
    if tar_identity(path) != replace(shard.tar_identity, captions=None):
        raise IdentityError(
            "the tar is not the one that was cached", where=path, remedy="Restore the tar, or make a new cache."
        )
    return path


def _answer(models: FrozenModels, cache: Cache, item: Decoded) -> BucketRows | None:
    plan = PartPlan(item.tar, "p000", "whole", 0, cache.draws_per_sample, cache.identity.blocks)
    rows, _ = models.answer([item], plan)
    return rows


def _sketches(layout: BucketLayout) -> dict[str, Sketch]:
    """Prefix of its arrays -> sketch, of the blocks and of the noise prediction where that has one."""
    found = {f"{FEATURES}/{block}": sketch for block, sketch in layout.sketches.items()}
    return found | ({} if layout.noise_pred_sketch is None else {NOISE_PRED: layout.noise_pred_sketch})


def _compare(
    bucket: Bucket, row: int, again: BucketRows, sketches: dict[str, Sketch], errors: dict[str, list[float]]
) -> Iterator[str]:
    """Note relative errors; yield what must agree exactly and does not."""
    where = f"{bucket.name}/{bucket.keys[row]}"
    if again.bucket != bucket.name:
        yield f"{where}: falls into {again.bucket} now"
        return
    draws = bucket.draws_per_sample
    cached = {
        name: bucket.read([name], row, row + 1)[name]
        if spec.level == "sample"
        else bucket.read([name], row * draws, (row + 1) * draws)[name]
        for name, spec in bucket.arrays.items()
    }
    fresh = {**again.samples, **again.records}
    for name, rows in cached.items():
        kind, _, group = name.partition("/")
        if name.rpartition("/")[0] in sketches:
            continue
        if kind == QUERIES:  # of int8, one that lies between two steps may be rounded to either
            pair = (decode_queries(arrays, group).double().numpy() for arrays in (fresh, cached))
            errors[name] += _relative(*pair)
        elif rows.dtype.kind != "f" and bucket.arrays[name].attributes.get("bits") is None:
            if not np.array_equal(rows, fresh[name]):
                yield f"{where}: {name} differs"
        else:
            bits = bucket.arrays[name].attributes.get("bits")
            errors[name] += _relative(_floats(fresh[name], bits), _floats(rows, bits))
    for prefix, sketch in sketches.items():
        errors[prefix] += _relative(*(_decoded(sketch, prefix, rows) for rows in (fresh, cached)))


def _decoded(sketch: Sketch, prefix: str, rows: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    stored = {suffix: from_numpy(rows[f"{prefix}/{suffix}"]) for suffix in sketch.arrays}
    return sketch.decode(stored).double().numpy()


def _floats(rows: npt.NDArray[Any], bits: str | None) -> npt.NDArray[np.float64]:
    return from_numpy(np.ascontiguousarray(rows), bits).double().numpy()


def _relative(again: npt.NDArray[np.float64], cached: npt.NDArray[np.float64]) -> list[float]:
    flat_again, flat = again.reshape(len(again), -1), cached.reshape(len(cached), -1)
    sizes = np.linalg.norm(flat, axis=1) + _TINY
    errors: list[float] = (np.linalg.norm(flat_again - flat, axis=1) / sizes).tolist()
    return errors


def _environment(device: torch.device) -> dict[str, str]:
    versions = {name: metadata.version(name) for name in ("torch", "diffusers", "transformers", "numpy")}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {**versions, "device": name, "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
