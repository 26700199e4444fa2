"""Texts alone: the teacher draws their images, and the records are those of images, or states of the drawing itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from data_tools.inspect.verify import verify
from pea.cache import Cache, cache_identity
from pea.cache.audit import audit
from pea.cache.identity import TARS
from pea.cache.takedown import remove_samples
from pea.collect.collector import Collector, Task
from pea.collect.drawing import TextDrawer, trailing_timesteps
from pea.collect.teacher_rows import FrozenModels
from pea.config import Config, CorpusConfig, DrawingConfig
from pea.corpus.texts import text_parts
from pea.draws.recipe import DrawRecipe, start_noise_batch
from pea.errors import ConfigError, IdentityError
from stages import train_adapter
from stages.command.console import Console
from stages.training.setup import prepare
from tests.train_runs import log_rows, variant

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
QUIET = Console(quiet=True)
NATIVE = "一只猫狗红球大小在上下雪草"
Form = Literal["generated", "trajectory"]


def of_texts(config: Config, folder: Path, form: Form = "generated", *, count: int = 20, **cache: Any) -> Config:
    """The configuration with a table of texts in place of tars, and a run folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    colours = ("red", "green", "blue", "black")
    native = ["".join(NATIVE[number * step % len(NATIVE)] for step in (1, 3, 5, 7)) for number in range(count)]
    rows = [f"{number},a {colours[number % 4]} dog number {number},{native[number]}\n" for number in range(count)]
    (folder / "texts.csv").write_text("id,en,zh\n" + "".join(rows), encoding="utf-8")
    drawing = DrawingConfig(form=form, steps=4, guidance=2.0, rows_per_part=12)
    parallel = CorpusConfig(texts=str(folder / "texts.csv"), drawing=drawing)
    corpora = config.corpora.model_copy(update={"parallel": parallel, "culture": None})
    limits = config.cache.model_copy(update=cache)
    return config.model_copy(update={"corpora": corpora, "run_dir": folder / "run", "cache": limits})


def fill(config: Config, *, extend: bool = False, **task: Any) -> Cache:
    directory = config.cache_dir("parallel")
    cache = Cache.create_or_resume(directory, cache_identity(config, "parallel"), extend=extend)
    collector = Collector(config, "parallel", CPU)
    source = config.corpora.parallel.text_source
    assert source is not None
    parts = {part.name: part for part, _ in text_parts(source)}
    for plan in cache.plan():
        for _ in collector.collect(cache, Task(plan, parts[plan.tar], **task)):
            pass
    return Cache.open(directory)


def rows_of(cache: Cache, name: str) -> dict[str, np.ndarray]:
    found = {}
    for shard in cache.shards:
        for bucket in shard.buckets.values():
            if name in bucket.arrays:
                count = 1 if bucket.arrays[name].level == "sample" else bucket.draws_per_sample
                values = bucket.read([name], 0, bucket.num_samples * count)[name]
                found |= {
                    f"{shard.tar}/{key}": values[i * count : (i + 1) * count] for i, key in enumerate(bucket.keys)
                }
    return found


@pytest.fixture(scope="module")
def generated(tiny_sdxl: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = of_texts(tiny_sdxl, tmp_path_factory.mktemp("generated"))
    fill(config)
    return config


@pytest.fixture(scope="module")
def trajectory(tiny_sdxl: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = of_texts(tiny_sdxl, tmp_path_factory.mktemp("trajectory"), "trajectory")
    fill(config)
    return config


def test_a_cache_of_texts_is_a_cache(generated: Config, trajectory: Config) -> None:
    for config in (generated, trajectory):
        cache = Cache.open(config.cache_dir("parallel"))
        assert [shard.tar for shard in cache.shards] == ["texts-00000", "texts-00001"]
        assert cache.num_samples == 20 and audit(cache.directory).problems == []
        assert {name for shard in cache.shards for name in shard.buckets} == {"16x16", "16x24"}, "each shape has some"
        assert not any(values.any() for values in rows_of(cache, "latents_std").values())
        latents = rows_of(cache, "latents_mean")
        assert all(np.isfinite(values).all() for values in latents.values())
        assert len({values.tobytes() for values in latents.values()}) == 20
    assert (rows_of(cache, "noisy_latents").keys() == latents.keys()) and cache.identity.fields["corpus.texts"] == {
        "sampler": "ddim, trailing, groups of 8, v1",
        "form": "trajectory",
        "steps": 4,
        "guidance": 2.0,
    }
    assert rows_of(Cache.open(generated.cache_dir("parallel")), "noisy_latents") == {}


def test_latents_do_not_depend_on_the_batch_size(generated: Config, tiny_sdxl: Config, tmp_path: Path) -> None:
    small = of_texts(tiny_sdxl, tmp_path)
    run = small.cache.run.model_copy(update={"batch_size": 3})
    small = small.model_copy(update={"cache": small.cache.model_copy(update={"run": run})})
    one, other = fill(small, careful=True), Cache.open(generated.cache_dir("parallel"))
    assert one.identity == other.identity
    latents = rows_of(one, "latents_mean"), rows_of(other, "latents_mean")
    assert all(np.array_equal(latents[0][name], latents[1][name]) for name in latents[0])
    answers = rows_of(one, "noise_pred"), rows_of(other, "noise_pred")
    assert all(np.allclose(answers[0][name], answers[1][name], atol=1e-4) for name in answers[0])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_drawing_is_that_of_diffusers(generated: Config, guidance: float) -> None:
    models = FrozenModels(generated, "parallel", CPU)
    teacher, recipe = models._teacher, DrawRecipe(0, 0.1, 1000)
    assert teacher is not None
    conditioning, ids = models._english.encode(["a cat", "a dog"]), ["t/a", "t/b"]
    time_ids = torch.tensor([[16, 24, 0, 0, 16, 24]] * 2)
    shape = models.layouts["16x24"].latent_shape
    drawer = TextDrawer(teacher, models._empty, DrawingConfig(steps=5, guidance=guidance), recipe)
    scheduler = DDIMScheduler.from_config(
        teacher.scheduler.config, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True
    )
    scheduler.set_timesteps(5)
    assert scheduler.timesteps.tolist() == trailing_timesteps(5, 1000) == [999, 799, 599, 399, 199]
    latents, empty = torch.from_numpy(start_noise_batch(recipe, ids, shape)), models._empty
    for timestep in scheduler.timesteps:
        steps = timestep.repeat(2)
        answer = teacher.predict(latents, steps, conditioning, time_ids)
        if guidance > 1:
            without = type(empty)(*(None if each is None else each.repeat(2, *[1] * (each.ndim - 1)) for each in empty))
            base = teacher.predict(latents, steps, without, time_ids)
            answer = base + guidance * (answer - base)
        latents = scheduler.step(answer, timestep, latents).prev_sample
    drawn = drawer.draw(ids, conditioning, time_ids, shape)
    assert np.allclose(drawn.latents, latents.detach().numpy(), rtol=1e-3, atol=1e-3)


def test_states_lie_on_the_way_of_the_drawing(generated: Config) -> None:
    models = FrozenModels(generated, "parallel", CPU)
    assert models._teacher is not None
    recipe, ids = DrawRecipe(0, 0.1, 1000), ["t/a"]
    drawer = TextDrawer(models._teacher, models._empty, DrawingConfig(steps=4, guidance=2.0), recipe)
    conditioning, time_ids = models._english.encode(["a cat"]), torch.tensor([[16, 16, 0, 0, 16, 16]])
    shape = models.layouts["16x16"].latent_shape
    wanted = np.array([[999, 749, 0, 500]])
    latents, states = drawer.draw(ids, conditioning, time_ids, shape, wanted)
    assert states is not None and states.shape == (1, 4, *shape)
    start = start_noise_batch(recipe, ids, shape)
    assert np.allclose(states[:, 0], start, atol=1e-4), "it begins with noise"
    alpha = float(models._teacher.scheduler.alphas_cumprod[0])
    spread = np.abs(states[:, 2] - alpha**0.5 * latents).max()
    assert spread < 6 * (1 - alpha) ** 0.5, "and ends at the latents"
    assert np.array_equal(drawer.draw(ids, conditioning, time_ids, shape).latents, latents), "wherever it is asked"


@pytest.mark.parametrize("form", ["generated", "trajectory"])
def test_training_from_the_cache_is_training_from_the_live_teacher(
    request: pytest.FixtureRequest, tmp_path: Path, form: str
) -> None:
    config, losses = request.getfixturevalue(form), {}
    for targets in ("cached", "live"):
        run = variant(config, tmp_path / targets, targets=targets, steps=2, batch_size=6)
        train_adapter.run(run, QUIET)
        losses[targets] = [row["loss"] for row in log_rows(run)]
    assert losses["cached"] == pytest.approx(losses["live"], rel=1e-5)


def test_the_student_is_shown_the_states_that_the_teacher_was(trajectory: Config, tmp_path: Path) -> None:
    setup = prepare(variant(trajectory, tmp_path, init="torch"), CPU)
    stored = rows_of(Cache.open(trajectory.cache_dir("parallel")), "noisy_latents")
    for index in range(4):
        batch = setup.data.batch(index)
        noisy = setup.teacher.add_noise(batch.latents, batch.noise, batch.timesteps)
        for row, name in enumerate(batch.names):
            sample, _, draw = name.rpartition("#")
            assert np.allclose(noisy[row].numpy(), stored[sample][int(draw)], atol=1e-4)


def test_more_draws_are_more_states_of_the_same_drawing(tiny_sdxl: Config, trajectory: Config, tmp_path: Path) -> None:
    fill(of_texts(tiny_sdxl, tmp_path, "trajectory", draws_per_sample=1))
    grown = fill(of_texts(tiny_sdxl, tmp_path, "trajectory"), extend=True)
    at_once = Cache.open(trajectory.cache_dir("parallel"))
    for name in ("latents_mean", "noisy_latents", "timestep", "noise_pred"):
        one, other = rows_of(grown, name), rows_of(at_once, name)
        assert all(np.allclose(one[key], other[key], atol=1e-4) for key in other), name


def test_a_text_is_taken_down_like_an_image(tiny_sdxl: Config, tmp_path: Path) -> None:
    config = of_texts(tiny_sdxl, tmp_path, count=4)
    cache = fill(config)
    assert remove_samples(cache, "texts-00000", ["2"]) == ["2"]
    assert Cache.open(cache.directory).num_samples == 3 and audit(cache.directory).problems == []


def test_texts_are_verified_like_images(generated: Config, trajectory: Config) -> None:
    for config in (generated, trajectory):
        found = verify(config, "parallel", num_samples=4, threshold=1e-3)
        assert found.passed and len(found.samples) == 4, found.problems


def test_how_they_were_drawn_is_identity(generated: Config, tmp_path: Path) -> None:
    parallel = generated.corpora.parallel

    def changed(**drawing: Any) -> Config:
        source = parallel.model_copy(update={"drawing": parallel.drawing.model_copy(update=drawing)})
        return generated.model_copy(update={"corpora": generated.corpora.model_copy(update={"parallel": source})})

    for drawing in ({"steps": 5}, {"guidance": 2.5}, {"form": "trajectory"}):
        [(name, value)] = drawing.items()
        with pytest.raises(IdentityError, match=rf"corpus\.texts\.{name}: the cache has .*, wanted {value}"):
            Cache.create_or_resume(generated.cache_dir("parallel"), cache_identity(changed(**drawing), "parallel"))
    more = cache_identity(changed(rows_per_part=10), "parallel")
    assert [tar["name"] for tar in more.fields[TARS]] == ["texts-00000", "texts-00001"]
    with pytest.raises(IdentityError, match=r"corpus\.tars\[texts-00000\]"):
        Cache.create_or_resume(generated.cache_dir("parallel"), more)
    with pytest.raises(ConfigError, match=r"drawing\.steps: more steps than the teacher has .* 1000; got 1001"):
        FrozenModels(changed(steps=1001), "parallel", CPU)
