"""``pea inspect export``: a page that needs nothing else and shows what the cache holds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from data_tools.inspect.export import export
from data_tools.inspect.show import Found
from data_tools.inspect.teacher_view import TeacherView
from pea.cache import Cache
from pea.cache.checks import recipe_of
from pea.config import Config
from pea.corpus.tars import sample_id
from pea.draws.recipe import noise
from stages.cli import main


def test_the_page_is_self_contained_and_shows_samples(
    tiny_sdxl: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    directory = tiny_sdxl.cache_dir("parallel")
    assert main(["inspect", "export", str(directory), "--html", str(page), "--samples", "3"]) == 0
    assert capsys.readouterr().out.startswith(f"{page}: 3 samples, ")
    text = page.read_text("utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert text.count('<article class="sample-card">') == 3
    assert "features/mid_block" in text and "teacher.unet" in text
    shown = re.findall(r"<code>(parallel-\d/\d+)</code>", text)
    captions = {
        f"{shard.tar}/{key}": caption
        for shard in Cache.open(directory).shards
        for bucket in shard.buckets.values()
        for key, caption in zip(bucket.keys, bucket.captions("zh"), strict=True)
    }
    assert len(shown) == 3 and all(captions[name] in text for name in shown)


def test_latents_are_decoded_and_the_choice_is_seeded(tiny_sdxl: Config, tmp_path: Path) -> None:
    options = {"num_samples": 2, "checkpoint": tiny_sdxl.teacher.checkpoint}
    pages = []
    for number, seed in enumerate((1, 1, 2)):
        path = tmp_path / f"{number}.html"
        assert export(tiny_sdxl.cache_dir("culture"), path, seed=seed, **options) == 2
        pages.append(path.read_text("utf-8"))
    assert pages[0] == pages[1] != pages[2]


def test_a_cache_without_answers_speaks_of_none(tiny_sdxl: Config, tmp_path: Path) -> None:
    said = {}
    for corpus in ("parallel", "culture"):
        export(tiny_sdxl.cache_dir(corpus), tmp_path / corpus, num_samples=5, seed=0, checkpoint=None)
        said[corpus] = (tmp_path / corpus).read_text("utf-8")
    assert "without answers of the teacher" in said["culture"] and "prediction" not in said["culture"]
    assert "5 samples. In false colours: the latents.</p>" in said["culture"], "they are all of it"
    assert "The teacher&#39;s answers" in said["parallel"] and "5 of 16, chosen at random." in said["parallel"]


def test_an_answer_that_names_the_noise_gives_the_image_back(tiny_sdxl: Config) -> None:
    cache = Cache.open(tiny_sdxl.cache_dir("parallel"))
    view, recipe = TeacherView(cache, tiny_sdxl.teacher.checkpoint), recipe_of(cache.identity)
    bucket = cache.shards[0].buckets["16x16"]
    assert recipe is not None

    class Perfect(Found):
        """A sample of which the teacher knows everything, and whose image has no spread."""

        def read(self, name: str) -> np.ndarray:
            rows = super().read(name)
            if name == "latents_std":
                return np.zeros_like(rows)
            if name == "noise_pred":
                name = sample_id(self.tar, self.key)
                return np.stack([noise(recipe, name, draw, rows.shape[1:]) for draw in range(len(rows))])
            return rows

    found = Perfect(cache, cache.shards[0].tar, bucket, 0)
    image = view.image(found.read("latents_mean"))
    for draw in range(3):
        noised, clean = view.of_draw(found, draw)
        assert not np.array_equal(noised, image)
        assert np.abs(clean.astype(int) - image).max() <= 1
