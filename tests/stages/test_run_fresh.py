"""`pea run` by content: what a repair, a takedown, lost files or other weights make run again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pea.cache import Cache
from pea.cache.audit import audit, repair
from pea.cache.content import cache_content
from pea.cache.takedown import remove_samples
from pea.config import load_config
from pea.storage.location import Location
from stages.command.console import Console
from stages.pipeline.definition import Stage, load_pipeline
from stages.run import Runner, StageFailedError
from tests.cache_helpers import CacheMaker

pytestmark = pytest.mark.slow

STAGES = [
    {"name": "cache", "run": ["pea", "cache"], "uses": ["cache"], "writes": ["{cache_root}/parallel"]},
    {
        "name": "train",
        "run": ["pea", "train"],
        "uses": ["student", "train"],
        "reads": ["{cache_root}/parallel"],
        "writes": ["{run_dir}/adapter"],
    },
    {"name": "evaluate", "run": ["pea", "eval"], "reads": ["{run_dir}/adapter"], "writes": ["{run_dir}/metrics.json"]},
]


class Product:
    """What the stages do, in this process: fill a made-up cache, "train" weights that follow from its rows, score."""

    def __init__(self, folder: Path) -> None:
        self.run_dir = folder / "run"
        self.cache_dir = folder / "caches" / "parallel"
        self.adapter = self.run_dir / "adapter"

    def cache(self) -> None:
        CacheMaker(self.cache_dir).fill()
        (self.cache_dir / "run_summary.json").write_text('{"seconds": 1}')

    def train(self) -> None:
        self.adapter.mkdir(parents=True, exist_ok=True)
        (self.adapter / "config.json").write_text(json.dumps({"_class_name": "PEA"}))
        rows = cache_content(Location.parse(self.cache_dir)).digest
        (self.adapter / "diffusion_pytorch_model.safetensors").write_text(rows)

    def evaluate(self) -> None:
        (self.run_dir / "metrics.json").write_text((self.adapter / "diffusion_pytorch_model.safetensors").read_text())

    def open(self) -> Cache:
        return Cache.open(self.cache_dir)


@pytest.fixture
def product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Product:
    monkeypatch.chdir(tmp_path)
    setup = {
        "run_dir": str(tmp_path / "run"),
        "cache_root": str(tmp_path / "caches"),
        "teacher": {"checkpoint": "teacher"},
        "corpora": {"parallel": {"tars": ["*.tar"]}},
        "student": {"encoder": "zh"},
    }
    Path("setup.yaml").write_text(yaml.safe_dump(setup))
    Path("pipeline.yaml").write_text(yaml.safe_dump({"config": "setup.yaml", "stages": STAGES}))
    product = Product(tmp_path)
    monkeypatch.setattr(Runner, "_execute", lambda _, stage: getattr(product, stage.name)())
    assert ran() == ["cache", "train", "evaluate"]
    return product


def ran(*overrides: str) -> list[str]:
    """Names of the stages that one `pea run` executes."""
    executed: list[str] = []

    class Watched(Runner):
        def _execute(self, stage: Stage) -> None:
            executed.append(stage.name)
            super()._execute(stage)

    pipeline = load_pipeline(Path("pipeline.yaml"))
    Watched(pipeline, load_config(pipeline.config, overrides), list(overrides), Console(quiet=True)).run()
    return executed


def test_what_is_as_it_was_runs_nothing(product: Product) -> None:
    assert ran() == []
    for path in [*product.cache_dir.rglob("*"), *product.run_dir.rglob("*")]:
        if path.is_file():
            path.write_bytes(path.read_bytes())
    (product.cache_dir / "run_summary.json").write_text('{"seconds": 2}')
    (product.cache_dir / "certificate.json").write_text("{}")
    (product.adapter / "README.md").write_text("other words")
    assert ran() == []
    assert ran("cache.run.num_actors=3", "evaluate.guidance_scale=3.0") == [], "what no stage uses"


def test_after_a_repair_the_shard_is_made_again_and_equal_rows_train_nothing(product: Product) -> None:
    chunk = next(path for path in sorted(product.cache_dir.rglob("c/**/*")) if path.is_file())
    chunk.write_bytes(bytes(chunk.stat().st_size))
    repair(product.open(), audit(product.cache_dir))
    assert ran() == ["cache"]
    assert ran() == []


def _take_down(product: Product) -> None:
    remove_samples(product.open(), "a", ["a-24x32-1"])


def test_after_a_takedown_everything_runs(product: Product) -> None:
    _take_down(product)
    assert ran() == ["cache", "train", "evaluate"]
    assert ran() == []


def _lose_all(product: Product) -> None:
    shutil.rmtree(product.cache_dir / "shards")


def _lose_the_cache(product: Product) -> None:
    shutil.rmtree(product.cache_dir)


def _lose_a_record(product: Product) -> None:
    cache = product.open()
    Path(cache.record_path(cache.manifest.parts[0])).unlink()


@pytest.mark.parametrize("lose", [_lose_all, _lose_the_cache, _lose_a_record])
def test_lost_shards_are_made_again_and_equal_rows_train_nothing(
    product: Product, lose: Callable[[Product], None]
) -> None:
    lose(product)
    assert ran() == ["cache"]
    assert ran() == []


def _lose_a_store(product: Product) -> None:
    shutil.rmtree(next(product.cache_dir.rglob("*.zarr")))


def _lose_a_chunk(product: Product) -> None:
    next(path for path in sorted(product.cache_dir.rglob("c/**/*")) if path.is_file()).unlink()


@pytest.mark.parametrize("harm", [_lose_a_store, _lose_a_chunk])
def test_damage_that_caching_leaves_ends_the_run_with_its_remedy(
    product: Product, harm: Callable[[Product], None]
) -> None:
    harm(product)
    with pytest.raises(StageFailedError, match=r"cache.*files missing.*Run `pea inspect check --repair \S+parallel`"):
        ran()
    with pytest.raises(StageFailedError):
        ran()
    repair(product.open(), audit(product.cache_dir))
    assert ran() == ["cache"]
    assert ran() == []


def test_other_weights_are_scored_again(product: Product) -> None:
    (product.adapter / "diffusion_pytorch_model.safetensors").write_text("other")
    assert ran() == ["train"], "and trained back to what they were"
    weights = product.adapter / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    assert ran() == ["train"]
    assert ran("train.steps=7") == ["train"], "equal weights are not scored again"


def test_a_lost_result_is_made_again(product: Product) -> None:
    (product.run_dir / "metrics.json").unlink()
    assert ran() == ["evaluate"]


def test_a_record_of_an_older_version_is_none(product: Product) -> None:
    record = product.run_dir / "state" / "train.json"
    content = json.loads(record.read_text())
    del content["written"]
    record.write_text(json.dumps(content))
    assert ran() == ["train"]
