"""Described culture images in a run: all phases distil them, the diffusion loss keeps them, the run knows of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pea.cache import Cache
from pea.config import Config, PhaseConfig
from pea.errors import CacheError
from stages import train_adapter
from stages.command.console import Console
from stages.training.caches import open_cache, open_distilled
from stages.training.fingerprints import differing_settings, fingerprint_without_unet
from stages.training.setup import prepare
from tests.collect.test_described import TEXTS, describe
from tests.tiny_setup import fill_cache, with_queries
from tests.train_runs import same, variant, weights

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)
PHASES = (
    PhaseConfig(kind="text", steps=2, batch_size=6),
    PhaseConfig(kind="attention", steps=2, batch_size=6, learning_rate=2e-3),
    PhaseConfig(kind="unet", steps=2, batch_size=8),
)


@pytest.fixture(scope="module")
def config(tiny_sdxl: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The tiny setup with queries, and descriptions of three of its five culture images."""
    folder = tmp_path_factory.mktemp("described")
    with_texts = describe(with_queries(tiny_sdxl, folder / "run"), folder / "texts", TEXTS)
    fill_cache(with_texts, "described", Path(tiny_sdxl.corpora.parallel.tars[0]).parent)
    return with_texts


def test_batches_hold_them_twice(config: Config, tmp_path: Path) -> None:
    run = variant(config, tmp_path, batch_size=8, culture_fraction=0.5, min_description_gain=None)
    data = prepare(run, torch.device("cpu")).data
    distilled, diffused = set(), set()
    for index in range(3 * data.batches_per_epoch):
        batch = data.batch(index)
        distilled |= {name.partition("#")[0] for name in batch.names[: batch.num_parallel]}
        diffused |= {name.partition("#")[0] for name in batch.names[batch.num_parallel :]}
    described = {f"culture/{key}" for key in TEXTS}
    assert described == {name for name in distilled if name.startswith("culture/")}
    assert described < diffused and len(diffused) == 5
    none = prepare(variant(config, tmp_path, batch_size=8, min_description_gain=0.99), torch.device("cpu")).data
    assert none.num_records == data.num_records - 3 * len(TEXTS), "no description of a random teacher gains that much"


def test_all_phases_of_a_run(config: Config, tmp_path: Path) -> None:
    without = config.model_copy(update={"corpora": config.corpora.model_copy(update={"described": None})})
    changes = {"phases": PHASES, "min_description_gain": None}
    both = {"with": config, "without": without}
    runs = {name: variant(each, tmp_path / name, **changes) for name, each in both.items()}
    records = {name: train_adapter.run(run, QUIET)["records"] for name, run in runs.items()}
    assert records["with"] == records["without"] + 3 * len(TEXTS)
    assert not same(weights(runs["with"]), weights(runs["without"]))


def test_the_run_knows_of_them(config: Config) -> None:
    def fingerprint(each: Config) -> dict[str, object]:
        phases = each.train.model_copy(update={"phases": PHASES[:1]}).all_phases
        return fingerprint_without_unet(each, open_distilled(each), phases, 1)

    without = config.model_copy(update={"corpora": config.corpora.model_copy(update={"described": None})})
    understood = variant(config, config.run_dir.parent, min_description_gain=0.5)
    assert differing_settings(fingerprint(without), fingerprint(config)) == ["cache"]
    assert differing_settings(fingerprint(config), fingerprint(understood)) == ["phases"]
    assert open_distilled(without).identity.digest == open_cache(config, "parallel").identity.digest


def test_a_cache_that_is_not_there_is_said(config: Config, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    for corpus in ("parallel", "culture"):
        (tmp_path / "cache" / corpus).symlink_to(Path(str(config.cache_dir(corpus))))
    with pytest.raises(CacheError, match="cache/described"):
        open_distilled(config.model_copy(update={"cache_root": tmp_path / "cache"}))
    assert Cache.open(config.cache_dir("described")).num_samples == len(TEXTS)
