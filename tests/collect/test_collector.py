"""From a tar to a shard, without Ray: what is stored, that it is reproducible, and what is left out."""

from __future__ import annotations

import json
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionXLPipeline

from pea.cache import Bucket, Cache, Identity, cache_identity
from pea.cache.audit import audit
from pea.collect import teacher_rows
from pea.collect.collector import Collector, Done, Finished, ProgressEvent, Started, Task
from pea.config import Config
from pea.corpus.samples import Sample, place_in_bucket, read_tar
from pea.draws.recipe import DrawRecipe, draws, latent_noise, noise
from pea.errors import CorpusError, DiskFullError, IdentityError
from pea.storage import Location
from tests.corpus.tar_files import encoded, picture, write_tar
from tests.corpus.test_dirt import KINDS, build
from tests.tiny_setup import make_setup

CPU = torch.device("cpu")


def with_cache(config: Config, **changes: Any) -> Config:
    """The configuration with other cache settings; ``batch_size`` is one of ``cache.run``."""
    run = {name: changes.pop(name) for name in ("batch_size",) if name in changes}
    cache = config.cache.model_copy(update={**changes, "run": config.cache.run.model_copy(update=run)})
    return config.model_copy(update={"cache": cache})


def collect(config: Config, corpus: Any = "parallel", *, extend: bool = False, **task: Any) -> Cache:
    """Cache a corpus in this process."""
    cache = Cache.create_or_resume(config.cache_dir(corpus), cache_identity(config, corpus), extend=extend)
    collector = Collector(config, corpus, CPU)
    for part in cache.plan():
        list(collector.collect(cache, Task(part, _tar(config, part.tar), **task)))
    return Cache.open(config.cache_dir(corpus))


def _tar(config: Config, name: str) -> Path:
    return Path(config.corpora.parallel.tars[0]).parent / f"{name}.tar"


def _threads() -> set[threading.Thread]:
    """Threads of the product; those of other tests' writers may be among them."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("pea-")}


def contents(cache: Cache) -> dict[tuple[str, str, str], np.ndarray]:
    """(tar, bucket, array) -> all rows."""
    found = {}
    for shard in cache.shards:
        for name, bucket in shard.buckets.items():
            for array, spec in bucket.arrays.items():
                rows = bucket.num_samples if spec.level == "sample" else bucket.num_records
                found[shard.tar, name, array] = bucket.read([array], 0, rows)[array]
            found[shard.tar, name, "keys"] = np.array(bucket.keys)
    return found


def assert_same(one: Cache, other: Cache) -> None:
    left, right = contents(one), contents(other)
    assert left.keys() == right.keys()
    for name, rows in left.items():
        np.testing.assert_array_equal(rows, right[name], err_msg=str(name))


def find(cache: Cache, key: str) -> tuple[Bucket, int]:
    """The bucket and the row of a sample."""
    for shard in cache.shards:
        for bucket in shard.buckets.values():
            if key in bucket.keys:
                return bucket, bucket.keys.index(key)
    raise KeyError(key)


@pytest.mark.parametrize("key", ["0000", "0002"])
def test_a_record_is_what_a_plain_diffusers_pipeline_says(tiny_sdxl: Config, key: str) -> None:
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl.teacher.checkpoint)
    sample = next(
        item
        for item in read_tar(_tar(tiny_sdxl, "parallel-0"), {"*": "captions"})
        if isinstance(item, Sample) and item.key == key
    )
    placed = place_in_bucket(sample.image, tiny_sdxl.cache.buckets)
    recipe = DrawRecipe(tiny_sdxl.cache.seed, tiny_sdxl.cache.caption_drop_rate, 1000)
    drawn = draws(recipe, sample.id, 0, 3)
    bucket, row = find(Cache.open(tiny_sdxl.cache_dir("parallel")), key)
    records = bucket.read(["noise_pred", "timestep", "features/mid_block/values"], row * 3, row * 3 + 3)
    seen: dict[str, torch.Tensor] = {}
    pipe.unet.mid_block.register_forward_hook(lambda *args: seen.update(mid_block=args[-1]))
    with torch.no_grad():
        moments = pipe.vae.encode(torch.from_numpy(placed.pixels)[None]).latent_dist
        for draw in range(3):
            shape = tuple(moments.mean.shape[1:])
            latents = moments.mean + moments.std * torch.from_numpy(latent_noise(recipe, sample.id, draw, shape))
            noisy = DDPMScheduler.from_config(pipe.scheduler.config).add_noise(
                latents * pipe.vae.config.scaling_factor,
                torch.from_numpy(noise(recipe, sample.id, draw, shape))[None],
                torch.tensor([drawn.timestep[draw]]),
            )
            prompt = "" if drawn.caption_dropped[draw] else sample.captions["en"]
            embeds, _, pooled, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False)
            added = {"text_embeds": pooled, "time_ids": torch.from_numpy(placed.time_ids)[None]}
            expected = pipe.unet(
                noisy, int(drawn.timestep[draw]), encoder_hidden_states=embeds, added_cond_kwargs=added
            ).sample
            assert records["timestep"][draw] == drawn.timestep[draw]
            np.testing.assert_allclose(records["noise_pred"][draw], expected[0], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(
                records["features/mid_block/values"][draw], seen["mid_block"][0], rtol=1e-4, atol=1e-5
            )


@pytest.mark.slow
def test_draws_follow_from_the_key_alone_whatever_the_batches(fresh_run: Config, tiny_sdxl: Config) -> None:
    one = contents(collect(with_cache(fresh_run, batch_size=3)))
    other = contents(Cache.open(tiny_sdxl.cache_dir("parallel")))
    for name, rows in one.items():
        if rows.dtype.kind == "f":
            np.testing.assert_allclose(rows, other[name], rtol=1e-4, atol=1e-5, err_msg=str(name))
        else:
            np.testing.assert_array_equal(rows, other[name], err_msg=str(name))


def test_the_order_of_the_tars_changes_nothing(fresh_run: Config, tiny_sdxl: Config) -> None:
    parallel = fresh_run.corpora.parallel
    tars = tuple(str(_tar(fresh_run, name)) for name in ("parallel-1", "parallel-0"))
    corpora = fresh_run.corpora.model_copy(update={"parallel": parallel.model_copy(update={"tars": tars})})
    config = fresh_run.model_copy(update={"corpora": corpora})
    cache = Cache.create_or_resume(config.cache_dir("parallel"), cache_identity(config, "parallel"))
    collector = Collector(config, "parallel", CPU)
    for part in reversed(cache.plan()):
        list(collector.collect(cache, Task(part, _tar(config, part.tar))))
    expected = Cache.open(tiny_sdxl.cache_dir("parallel"))
    assert cache.identity.digest == expected.identity.digest
    assert_same(Cache.open(cache.directory), expected)


@pytest.mark.slow
def test_extending_equals_caching_at_once(fresh_run: Config, tiny_sdxl: Config) -> None:
    one_tar = {"tars": (str(_tar(fresh_run, "parallel-1")),)}
    parallel = fresh_run.corpora.parallel.model_copy(update=one_tar)
    small = fresh_run.model_copy(update={"corpora": fresh_run.corpora.model_copy(update={"parallel": parallel})})
    collect(with_cache(small, draws_per_sample=1, blocks=("mid_block",)))
    extended = collect(fresh_run, extend=True)
    assert len(extended.manifest.parts) > 2
    assert_same(extended, Cache.open(tiny_sdxl.cache_dir("parallel")))


@pytest.mark.slow
def test_careful_gives_the_same_bits_and_names_each_sample(fresh_run: Config, tiny_sdxl: Config) -> None:
    cache = Cache.create_or_resume(fresh_run.cache_dir("parallel"), cache_identity(fresh_run, "parallel"))
    collector, told = Collector(fresh_run, "parallel", CPU), list[str]()
    for part in cache.plan():
        task = Task(part, _tar(fresh_run, part.tar), careful=True)
        list(collector.collect(cache, task, told.append))
    assert_same(Cache.open(fresh_run.cache_dir("parallel")), Cache.open(tiny_sdxl.cache_dir("parallel")))
    keys = [f"{number:04d}" for number in range(16)]
    assert sorted(told) == sorted([*keys, *keys, *[""] * 4]), "decoded once, answered alone once, then four batches"


def test_events_tell_how_much_is_done(fresh_run: Config) -> None:
    cache = Cache.create_or_resume(fresh_run.cache_dir("parallel"), cache_identity(fresh_run, "parallel"))
    part = cache.plan()[0]
    events: list[ProgressEvent] = list(
        Collector(fresh_run, "parallel", CPU).collect(cache, Task(part, _tar(fresh_run, part.tar)))
    )
    assert events[0] == Started(12)
    assert sum(each.num_samples for each in events if isinstance(each, Done)) == 12
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.num_samples == 12
    assert set(last.stage_seconds) == {"decode", "vae", "text", "draws", "teacher", "sketch", "write"}


def test_culture_corpus_keeps_moments_and_captions_only(tiny_sdxl: Config) -> None:
    cache = Cache.open(tiny_sdxl.cache_dir("culture"))
    assert (cache.num_samples, cache.num_records) == (5, 0)
    bucket = next(iter(cache.shards[0].buckets.values()))
    assert set(bucket.arrays) == {"latents_mean", "latents_std", "time_ids"}
    assert all(bucket.captions("zh"))


@pytest.mark.slow
def test_skipped_keys_are_rejected_unread(fresh_run: Config) -> None:
    cache = collect(fresh_run, skip=("0003",))
    assert [tuple(each[:2]) for each in cache.shards[0].record.dropped] == [("0003", "process_killed")]
    assert cache.num_samples == 15


def _break_vae(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    encode = teacher_rows.VaeEncoder.encode

    def broken(self: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, std = encode(self, pixels)
        mean[1:2] = value
        return mean, std

    monkeypatch.setattr(teacher_rows.VaeEncoder, "encode", broken)


def _break_unet(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    forward = teacher_rows.Teacher.forward

    def broken(self: Any, *args: Any) -> Any:
        output = forward(self, *args)
        output.features["mid_block"][1:2] = value
        return output

    monkeypatch.setattr(teacher_rows.Teacher, "forward", broken)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("breakage", "value", "reason"),
    [
        (_break_vae, float("nan"), "nonfinite_latents"),
        (_break_vae, float("-inf"), "nonfinite_latents"),
        (_break_unet, float("nan"), "nonfinite_teacher"),
        (_break_unet, float("inf"), "nonfinite_teacher"),
    ],
)
def test_answers_that_are_not_finite_leave_only_their_sample_out(
    fresh_run: Config, monkeypatch: pytest.MonkeyPatch, breakage: Callable[..., None], value: float, reason: str
) -> None:
    breakage(monkeypatch, value)
    cache = collect(with_cache(fresh_run, batch_size=100))
    dropped = [tuple(each[:2]) for shard in cache.shards for each in shard.record.dropped]
    # The second sample of each batch: of the square bucket and of the wide one, in each tar with two of them.
    assert dropped == [("0001", reason), ("0005", reason), ("0013", reason)]
    assert cache.num_samples == 13
    assert all(np.isfinite(rows).all() for rows in contents(cache).values() if rows.dtype.kind == "f")


@pytest.mark.slow
def test_values_beyond_the_stored_type_count_as_not_finite(fresh_run: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    _break_vae(monkeypatch, 1e30)
    cache = collect(with_cache(fresh_run, moments_dtype="float16", batch_size=100))
    assert {each[1] for shard in cache.shards for each in shard.record.dropped} == {"nonfinite_latents"}


def test_truncated_tar_leaves_nothing_behind(fresh_run: Config, tmp_path: Path) -> None:
    before = _threads()
    cache = Cache.create_or_resume(fresh_run.cache_dir("parallel"), cache_identity(fresh_run, "parallel"))
    part = cache.plan()[0]
    damaged = tmp_path / "parallel-0.tar"
    damaged.write_bytes(_tar(fresh_run, "parallel-0").read_bytes()[:3000])
    with pytest.raises(CorpusError, match=r"parallel-0\.tar"):
        list(Collector(fresh_run, "parallel", CPU).collect(cache, Task(part, damaged)))
    assert len(Cache.open(fresh_run.cache_dir("parallel"), partial=True).plan()) == 2
    assert not list(fresh_run.run_dir.rglob("*.zarr"))
    assert not _threads() - before


@pytest.mark.slow
def test_a_tar_that_is_not_the_one_of_the_manifest_leaves_nothing_behind(fresh_run: Config, tmp_path: Path) -> None:
    cache = Cache.create_or_resume(fresh_run.cache_dir("parallel"), cache_identity(fresh_run, "parallel"))
    part, changed = cache.plan()[0], tmp_path / "parallel-0.tar"
    data = bytearray(_tar(fresh_run, "parallel-0").read_bytes())
    data[data.index(b'"en": "') + 8] ^= 1  # still a whole tar with as many samples
    changed.write_bytes(data)
    with pytest.raises(CorpusError, match=r"parallel-0\.tar: the tar has changed since the cache was begun"):
        list(Collector(fresh_run, "parallel", CPU).collect(cache, Task(part, changed)))
    assert len(Cache.open(fresh_run.cache_dir("parallel"), partial=True).plan()) == 2


@pytest.mark.slow
def test_an_unfinished_cache_of_older_reading_rules_is_refused(fresh_run: Config) -> None:
    fields = cache_identity(fresh_run, "parallel").fields
    old = Identity({name: value for name, value in fields.items() if name != "corpus.reading"})
    cache = Cache.create_or_resume(fresh_run.cache_dir("parallel"), old)
    part = cache.plan()[0]
    with pytest.raises(IdentityError, match="older rules of reading tars"):
        list(Collector(fresh_run, "parallel", CPU).collect(cache, Task(part, _tar(fresh_run, part.tar))))


@pytest.mark.slow
def test_sizes_of_the_json_reach_the_time_ids_and_an_empty_tar_its_shard(fresh_run: Config, tmp_path: Path) -> None:
    texts = json.dumps({"captions": {"en": "a", "zh": "b", "ja": "c"}, "original_width": 640, "original_height": 480})
    files = [("k.png", encoded(picture(24, 16))), ("k.json", texts.encode())]
    for name, content in (("one", files), ("none", [])):
        write_tar(tmp_path / f"{name}.tar", content)
    corpora = fresh_run.corpora
    parallel = corpora.parallel.model_copy(update={"tars": (str(tmp_path / "*.tar"),)})
    cache = collect(fresh_run.model_copy(update={"corpora": corpora.model_copy(update={"parallel": parallel})}))
    assert [shard.num_samples for shard in cache.shards] == [0, 1]
    bucket, row = find(cache, "k")
    assert bucket.read(["time_ids"], row, row + 1)["time_ids"][0].tolist()[:2] == [480, 640]


@pytest.mark.slow
def test_tars_in_a_bucket_give_the_same_cache(fresh_run: Config, tiny_sdxl: Config, bucket: Location) -> None:
    for name in ("parallel-0", "parallel-1"):
        (bucket / f"corpus/{name}.tar").write_bytes(_tar(fresh_run, name).read_bytes())
    corpora = fresh_run.corpora
    parallel = corpora.parallel.model_copy(update={"tars": (f"{bucket}/corpus/parallel-{{0..1}}.tar",)})
    config = fresh_run.model_copy(update={"corpora": corpora.model_copy(update={"parallel": parallel})})
    cache = Cache.create_or_resume(config.cache_dir("parallel"), cache_identity(config, "parallel"))
    collector = Collector(config, "parallel", CPU)
    for part in cache.plan():
        list(collector.collect(cache, Task(part, bucket / f"corpus/{part.tar}.tar")))
    assert_same(Cache.open(config.cache_dir("parallel")), Cache.open(tiny_sdxl.cache_dir("parallel")))


@pytest.mark.slow
def test_a_dirty_tar_adds_up_in_the_cache_too(fresh_run: Config, tmp_path: Path) -> None:
    wanted, lost = build(tmp_path / "dirt.tar", sorted(KINDS), tarfile.PAX_FORMAT)
    corpora = fresh_run.corpora
    parallel = corpora.parallel.model_copy(update={"tars": (str(tmp_path / "*.tar"),)})
    config = fresh_run.model_copy(update={"corpora": corpora.model_copy(update={"parallel": parallel})})
    cache = collect(with_cache(config, max_image_pixels=10_000, max_file_bytes=200_000))
    (shard,) = cache.shards
    kept = [key for bucket in shard.buckets.values() for key in bucket.keys]
    assert sorted(kept) == sorted(wanted)
    assert sorted(key for key, _, _ in shard.record.dropped) == sorted(lost)
    assert audit(cache.directory, tars=[tmp_path / "dirt.tar"]).problems == []


@pytest.mark.slow
def test_full_disk_in_the_writing_thread_stops_everything(fresh_run: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _threads()
    from pea.cache import ShardWriter

    def full(*args: Any, **kwargs: Any) -> None:
        raise DiskFullError("the disk is full")

    monkeypatch.setattr(ShardWriter, "append", full)
    with pytest.raises(DiskFullError):
        collect(with_cache(fresh_run, batch_size=1))
    assert not list(fresh_run.run_dir.rglob("*.zarr"))
    assert not _threads() - before


@pytest.mark.slow
def test_models_that_are_not_those_of_the_manifest_are_refused(tmp_path: Path) -> None:
    config = make_setup(tmp_path).model_copy(update={"run_dir": tmp_path / "other"})
    cache = Cache.create_or_resume(config.cache_dir("parallel"), cache_identity(config, "parallel"))
    weights = config.teacher.checkpoint / "unet/diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    collector = Collector(config, "parallel", torch.device("cpu"))
    (part, *_) = cache.plan()
    with pytest.raises(IdentityError, match=r"teacher\.unet"):
        list(collector.collect(cache, Task(part, _tar(config, part.tar))))
    assert cache.plan()
