"""Identity: by content, every difference named, growth by new files only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pea.cache import Cache, Identity, cache_identity, compare, reading_identity, sha256_folder
from pea.cache.manifest import new_manifest
from pea.config import Config, load_config
from pea.errors import CacheError, CheckpointError, ConfigError, CorpusError, IdentityError
from pea.storage.digests import sha256_file
from tests.cache_helpers import CacheMaker, identity

CONFIG = """
run_dir: {root}/run
teacher: {{checkpoint: {root}/teacher}}
corpora:
  parallel: {{tars: ["{root}/data/*.tar"]}}
  culture: {{tars: ["{root}/data/a.tar"], source_language: zh}}
student: {{encoder: {root}/zh}}
"""


@pytest.fixture
def setup(tmp_path: Path) -> Callable[..., Config]:
    """Made-up model files and tars; returns a function from overrides to the configuration."""
    files = {
        "unet/config.json": json.dumps({"_v": 1, "down_block_types": ["D", "D"], "up_block_types": ["U", "U"]}),
        "unet/diffusion_pytorch_model.safetensors": "weights",
        "vae/config.json": "{}",
        "vae/diffusion_pytorch_model.safetensors": "vae weights",
        "text_encoder/model.safetensors": "text weights",
        "tokenizer/vocab.json": "{}",
        "scheduler/scheduler_config.json": json.dumps({"_class_name": "DDIM", "prediction_type": "v_prediction"}),
    }
    for name, text in files.items():
        path = tmp_path / "teacher" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "data").mkdir()
    for name in "ba":
        (tmp_path / "data" / f"{name}.tar").write_text(name)
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(root=tmp_path))
    return lambda *overrides: load_config(config, overrides)


def test_everything_that_matters_is_in_the_identity(setup: Callable[..., Config]) -> None:
    fields = cache_identity(setup(), "parallel").fields
    assert fields["cache.blocks"] == [
        "down_blocks.0",
        "down_blocks.1",
        "mid_block",
        "up_blocks.0",
        "up_blocks.1",
    ]
    assert fields["teacher.prediction_type"] == "v_prediction"
    assert [tar["name"] for tar in fields["corpus.tars"]] == ["a", "b"]
    assert {
        "teacher.unet",
        "teacher.vae",
        "teacher.text_encoder",
        "teacher.tokenizer",
        "teacher.dtype",
    } <= set(fields)
    json.dumps(fields)


DRIFTS: dict[str, tuple[str, str]] = {
    "unet/diffusion_pytorch_model.safetensors": ("other", "teacher.unet"),
    "vae/diffusion_pytorch_model.safetensors": ("other", "teacher.vae"),
    "text_encoder/model.safetensors": ("other", "teacher.text_encoder"),
    "tokenizer/vocab.json": ('{"a": 1}', "teacher.tokenizer"),
    "unet/config.json": (
        '{"down_block_types": ["D", "D"], "up_block_types": ["U", "U"], "x": 1}',
        "teacher.unet",
    ),
    "scheduler/scheduler_config.json": (
        '{"beta_start": 1, "prediction_type": "v_prediction"}',
        "teacher.scheduler",
    ),
    "../data/a.tar": ("c", "corpus.tars[a]"),
    "../data/c.tar": ("c", "corpus.tars[c]"),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_drift_of_any_file_is_refused(setup: Callable[..., Config], name: str) -> None:
    config = setup()
    directory = config.cache_dir("parallel")
    Cache.create_or_resume(directory, cache_identity(config, "parallel"))
    text, field = DRIFTS[name]
    (config.teacher.checkpoint / name).write_text(text)
    with pytest.raises(IdentityError) as caught:
        Cache.create_or_resume(directory, cache_identity(config, "parallel"))
    assert [difference.field for difference in caught.value.differences] == [field]
    message = str(caught.value)
    assert field in message and "the cache has" in message and "wanted" in message and "run_dir" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("cache.seed=1", "cache.seed"),
        ("cache.draws_per_sample=5", "cache.draws_per_sample"),
        ("cache.caption_drop_rate=0.2", "cache.caption_drop_rate"),
        ("cache.blocks=[mid_block]", "cache.blocks"),
        ("cache.block_sketches={mid_block: {kind: exact}}", "cache.sketches[mid_block]"),
        ("cache.noise_pred_dtype=float32", "cache.noise_pred_dtype"),
        ("cache.moments_dtype=float16", "cache.moments_dtype"),
        ("cache.buckets=[[64, 64]]", "cache.buckets"),
        ("cache.max_aspect_ratio=2", "cache.max_aspect_ratio"),
        ("cache.attention={num_queries: 3}", "cache.attention"),
        ("teacher.dtype=float16", "teacher.dtype"),
        ("corpora.parallel.source_language=zh", "corpus.source_language"),
        ("corpora.parallel.captions={en: text}", "corpus.captions"),
    ],
)
def test_drift_of_any_setting_is_refused(setup: Callable[..., Config], override: str, field: str) -> None:
    cached, wanted = cache_identity(setup(), "parallel"), cache_identity(setup(override), "parallel")
    assert field in [difference.field for difference in compare(cached, wanted)]
    assert cached.digest != wanted.digest


@pytest.mark.parametrize(
    "override",
    ["run_dir=elsewhere", "cache.run.num_actors=7", "cache.run.batch_size=1", "train.steps=3", "student.encoder=x",
     "cache.max_dropped_fraction=0.5", 'corpora.parallel.tars=["{data}/b.tar", "{data}/a.tar"]'],
)  # fmt: skip
def test_run_options_are_no_identity(setup: Callable[..., Config], override: str) -> None:
    data = setup().teacher.checkpoint.parent / "data"
    other = setup(override.replace("{data}", str(data)))
    assert cache_identity(setup(), "parallel") == cache_identity(other, "parallel")


def test_who_saved_a_model_is_no_identity(setup: Callable[..., Config]) -> None:
    folder = setup().teacher.checkpoint / "unet"
    before = sha256_folder(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_diffusers_version": "9", "_v": 2}))
    assert sha256_folder(folder) == before
    (folder / "README.md").write_text("notes")
    assert sha256_folder(folder) == before
    (folder / "a.safetensors").write_text("more")
    assert sha256_folder(folder) != before


def test_a_reader_needs_neither_tars_nor_the_other_models(setup: Callable[..., Config]) -> None:
    config = setup()
    cached = cache_identity(config, "parallel")
    for name in ("vae", "text_encoder"):
        (config.teacher.checkpoint / name / "config.json").unlink(missing_ok=True)
    wanted = reading_identity(config, "parallel")
    assert compare(cached, wanted) == []
    assert "corpus.tars" not in wanted.fields
    assert [d.field for d in compare(cached, reading_identity(setup("cache.seed=3"), "parallel"))] == ["cache.seed"]


def test_culture_has_no_records(setup: Callable[..., Config]) -> None:
    found = cache_identity(setup(), "culture")
    assert found.draws_per_sample == 0 and found.blocks == () and list(found.tars) == ["a"]
    assert "teacher.unet" not in found.fields and "teacher.vae" in found.fields
    assert compare(found, reading_identity(setup(), "culture")) == []


def test_missing_inputs(setup: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such model folder"):
        cache_identity(setup("teacher.checkpoint=/none"), "parallel")
    with pytest.raises(CorpusError, match="no such tar"):
        cache_identity(setup("corpora.parallel.tars=[/none/*.tar]"), "parallel")
    with pytest.raises(ConfigError, match=r"corpora\.culture is not set"):
        cache_identity(setup("corpora.culture=null"), "culture")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no model files"):
        sha256_folder(tmp_path / "empty")
    (setup().teacher.checkpoint / "unet" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot read"):
        cache_identity(setup(), "parallel")


def test_digests_are_remembered_but_never_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    monkeypatch.setattr("pea.cache.model_digest.sha256_file", lambda path: calls.append(path) or sha256_file(path))
    (tmp_path / "m.bin").write_text("1")
    first = sha256_folder(tmp_path)
    assert sha256_folder(tmp_path) == first and len(calls) == 1
    (tmp_path / "m.bin").write_text("2")
    assert sha256_folder(tmp_path) != first and len(calls) == 2


def test_a_manifest_that_is_damaged_is_refused(make_cache: CacheMaker) -> None:
    make_cache.fill(identity(["a"]))
    path = make_cache.directory / "manifest.json"
    data = path.read_bytes()
    for place in np.random.default_rng(1).integers(0, len(data), 60).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CacheError, match="damaged"):
            Cache.open(make_cache.directory)
    path.unlink()
    with pytest.raises(CacheError, match="no cache here"):
        Cache.open(make_cache.directory)


def test_another_format_version_is_refused(make_cache: CacheMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("pea.cache.manifest.FORMAT_VERSION", 99)
        Cache.create_or_resume(make_cache.directory, identity())
    with pytest.raises(CacheError, match="another format version; expected 1; got 99"):
        Cache.open(make_cache.directory)


def test_plans_are_in_tar_order() -> None:
    assert [plan.tar for plan in new_manifest(identity(["c", "a", "b"])).parts] == ["a", "b", "c"]
    assert isinstance(identity(), Identity)
