"""Identity: by content, every difference named, growth by new files only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from pea.cache import Cache, Identity, cache_identity, compare, reading_identity, sha256_folder
from pea.cache.identity import model_identity
from pea.cache.manifest import new_manifest
from pea.config import Config, load_config
from pea.errors import CacheError, CheckpointError, ConfigError, CorpusError, IdentityError
from pea.models.loading import load_part
from pea.models.unet import Teacher
from pea.models.vae import VaeEncoder
from tests.cache_helpers import CacheMaker, identity
from tests.tiny_models import make_checkpoint

CONFIG = """
run_dir: {root}/run
teacher: {{checkpoint: {root}/teacher}}
corpora:
  parallel: {{tars: ["{root}/data/*.tar"]}}
  culture: {{tars: ["{root}/data/a.tar"], source_language: zh}}
student: {{encoder: {root}/zh}}
"""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("teacher"), "sdxl", "v_prediction")


@pytest.fixture
def setup(tmp_path: Path, teacher: Path) -> Callable[..., Config]:
    """A tiny teacher and made-up tars; returns a function from overrides to the configuration."""
    shutil.copytree(teacher, tmp_path / "teacher")
    (tmp_path / "data").mkdir()
    for name in "ba":
        (tmp_path / "data" / f"{name}.tar").write_text(name)
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(root=tmp_path))
    return lambda *overrides: load_config(config, overrides)


def change_json(path: Path, **changes: Any) -> None:
    """Replace keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensor(path: Path) -> None:
    """Add 1 to one number of a safetensors file."""
    tensors = load_file(path)
    tensors[min(tensors)].view(-1)[0] += 1
    save_file(tensors, path, metadata={"format": "pt"})


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


_UNET = "unet/diffusion_pytorch_model.safetensors"
DRIFTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "unet": (_UNET, change_tensor, "teacher.unet.tensors: the cache has"),
    "vae": ("vae/diffusion_pytorch_model.safetensors", change_tensor, "teacher.vae.tensors: "),
    "text": ("text_encoder/model.safetensors", change_tensor, "teacher.text_encoder.tensors: "),
    "second text": ("text_encoder_2/model.safetensors", change_tensor, "teacher.text_encoder_2.tensors: "),
    "tokenizer": (
        "tokenizer/tokenizer_config.json",
        lambda path: change_json(path, model_max_length=9),
        "teacher.tokenizer.behaviour: ",
    ),
    "unet's settings": (
        "unet/config.json",
        lambda path: change_json(path, act_fn="gelu"),
        "teacher.unet.config.act_fn: the cache has (nothing), wanted gelu",
    ),
    "text's settings": (
        "text_encoder/config.json",
        lambda path: change_json(path, hidden_act="gelu"),
        "teacher.text_encoder.config.hidden_act: the cache has (nothing), wanted gelu",
    ),
    "vae's scale": (
        "vae/config.json",
        lambda path: change_json(path, scaling_factor=0.25),
        "teacher.vae.config.scaling_factor: the cache has 0.5, wanted 0.25",
    ),
    "betas": (
        "scheduler/scheduler_config.json",
        lambda path: change_json(path, beta_start=0.5),
        "teacher.scheduler.beta_start: the cache has 0.00085, wanted 0.5",
    ),
    "zero SNR": (
        "scheduler/scheduler_config.json",
        lambda path: change_json(path, rescale_betas_zero_snr=True),
        "teacher.scheduler.rescale_betas_zero_snr: the cache has (nothing), wanted true",
    ),
    "a tar": ("../data/a.tar", lambda path: path.write_text("c"), "corpus.tars[a]: the cache has 1 bytes, sha256"),
    "another tar": ("../data/c.tar", lambda path: path.write_text("c"), "corpus.tars[c]: the cache has (nothing)"),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_drift_of_any_model_is_refused_by_the_keys_that_differ(setup: Callable[..., Config], name: str) -> None:
    config = setup()
    directory = config.cache_dir("parallel")
    Cache.create_or_resume(directory, cache_identity(config, "parallel"))
    file, change, said = DRIFTS[name]
    change(config.teacher.checkpoint / file)
    with pytest.raises(IdentityError) as caught:
        Cache.create_or_resume(directory, cache_identity(config, "parallel"))
    message = str(caught.value)
    assert len(caught.value.differences) == 1 and said in message
    assert message.count("the cache has") == 1 and "wanted" in message and "run_dir" in message
    assert "\n" not in message


def test_every_key_that_differs_is_shown_and_no_other() -> None:
    long = {f"key_{index}": "the same on both sides" for index in range(40)}
    cached = identity(**{"teacher.scheduler": {**long, "inside": {"a": 1, "b": 2}, "z": 1}})
    wanted = identity(**{"teacher.scheduler": {**long, "inside": {"a": 1, "b": 3}, "z": 2}})
    (difference,) = compare(cached, wanted)
    assert str(difference) == (
        "teacher.scheduler.inside.b: the cache has 2, wanted 3 | teacher.scheduler.z: the cache has 1, wanted 2"
    )


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
        ("corpora.parallel.image_formats=[PNG]", "corpus.reading"),
        ("cache.max_file_bytes=9", "corpus.reading"),
    ],
)
def test_drift_of_any_setting_is_refused(setup: Callable[..., Config], override: str, field: str) -> None:
    cached, wanted = cache_identity(setup(), "parallel"), cache_identity(setup(override), "parallel")
    assert field in [difference.field for difference in compare(cached, wanted)]
    assert cached.digest != wanted.digest


def test_a_cache_without_reading_rules_stays_what_it_is(
    setup: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = setup()
    directory, wanted = config.cache_dir("parallel"), cache_identity(config, "parallel")
    old = Identity({name: value for name, value in wanted.fields.items() if name != "corpus.reading"})
    Cache.create_or_resume(directory, old)
    assert Cache.create_or_resume(directory, wanted).identity == old
    other = Identity({**wanted.fields, "cache.seed": 9})
    with pytest.raises(IdentityError, match=r"cache\.seed"):
        Cache.create_or_resume(directory, other)
    more = cache_identity(setup("cache.draws_per_sample=9"), "parallel")
    with pytest.raises(IdentityError, match=r"corpus\.reading.*can be used as it is, but not extended"):
        Cache.create_or_resume(directory, more, extend=True)
    assert Cache.create_or_resume(directory, old).identity == old


@pytest.mark.parametrize(
    "override",
    ["run_dir=elsewhere", "cache.run.num_actors=7", "cache.run.batch_size=1", "train.steps=3", "student.encoder=x",
     "cache.max_dropped_fraction=0.5", 'corpora.parallel.tars=["{data}/b.tar", "{data}/a.tar"]'],
)  # fmt: skip
def test_run_options_are_no_identity(setup: Callable[..., Config], override: str) -> None:
    data = setup().teacher.checkpoint.parent / "data"
    other = setup(override.replace("{data}", str(data)))
    assert cache_identity(setup(), "parallel") == cache_identity(other, "parallel")


def _reshard(checkpoint: Path) -> None:
    """The UNet in shards of other names, as `save_pretrained(max_shard_size=...)` writes them."""
    unet = load_part(UNet2DConditionModel, checkpoint / "unet", torch.float32)
    (checkpoint / _UNET).unlink()
    unet.save_pretrained(checkpoint / "unet", max_shard_size="20KB")
    assert len(list((checkpoint / "unet").glob("*-of-*.safetensors"))) > 2


def _beside(checkpoint: Path) -> None:
    """Files that nobody reads."""
    for name in ("README.md", "diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.safetensors", "x.json"):
        (checkpoint / "unet" / name).write_text("notes")
    (checkpoint / "tokenizer" / "README.md").write_text("notes")


def _resaved(checkpoint: Path) -> None:
    """By other programs: other orders of tensors, metadata, and keys that no class takes."""
    tensors = load_file(checkpoint / "text_encoder/model.safetensors")
    tensors["text_model.embeddings.position_ids"] = torch.arange(12)
    save_file(dict(reversed(tensors.items())), checkpoint / "text_encoder/model.safetensors", metadata={"by": "x"})
    change_json(checkpoint / "text_encoder/config.json", transformers_version="4.0", architectures=["CLIPTextModel"])
    change_json(checkpoint / "unet/config.json", _diffusers_version="9", sample_size=64, unheard_of=1)
    euler = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", "set_alpha_to_one": None}
    change_json(checkpoint / "scheduler/scheduler_config.json", **euler, lambda_min_clipped=float("-inf"))


def _fp16_beside(checkpoint: Path) -> None:
    """The whole of a second variant, valid but never read."""
    half = {name: tensor.half() for name, tensor in load_file(checkpoint / _UNET).items()}
    save_file(half, checkpoint / "unet/diffusion_pytorch_model.fp16.safetensors")


@pytest.mark.parametrize("change", [_reshard, _beside, _resaved, _fp16_beside])
def test_what_is_not_computed_with_is_no_identity(setup: Callable[..., Config], change: Callable[[Path], None]) -> None:
    config = setup()
    before = cache_identity(config, "parallel")
    change(config.teacher.checkpoint)
    assert cache_identity(config, "parallel").fields == before.fields


def test_a_cache_with_digests_of_folders_is_opened_and_grows(setup: Callable[..., Config]) -> None:
    """As older versions wrote them: files by name, all keys of the scheduler, no type of the VAE."""
    config = setup()
    checkpoint, wanted = config.teacher.checkpoint, cache_identity(config, "parallel")
    parts = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    fields = {**wanted.fields, **{f"teacher.{part}": sha256_folder(checkpoint / part) for part in parts}}
    scheduler = json.loads((checkpoint / "scheduler/scheduler_config.json").read_text())
    fields["teacher.scheduler"] = {key: value for key, value in scheduler.items() if not key.startswith("_")}
    del fields["teacher.vae_dtype"]
    former, directory = Identity(fields), config.cache_dir("parallel")
    Cache.create_or_resume(directory, former)
    assert Cache.create_or_resume(directory, wanted).identity == former
    for expected in (model_identity(config, "parallel"), reading_identity(config, "parallel")):
        assert compare(former, expected) == []
    (config.teacher.checkpoint.parent / "data/c.tar").write_text("c")
    grown = Cache.create_or_resume(directory, cache_identity(config, "parallel"), extend=True)
    assert grown.identity.core_digest == former.core_digest and "c" in grown.identity.tars
    change_tensor(checkpoint / _UNET)
    with pytest.raises(IdentityError, match=r"teacher\.unet: the cache has [0-9a-f]{12}…, wanted"):
        Cache.create_or_resume(directory, cache_identity(config, "parallel"))


def test_a_vae_that_overflows_in_half_precision_has_a_type_of_its_own(setup: Callable[..., Config]) -> None:
    path = setup().teacher.checkpoint / "vae/config.json"
    found = {}
    for upcast in (True, False):
        change_json(path, force_upcast=upcast)
        for dtype in ("float32", "float16"):
            config = setup(f"teacher.vae_dtype={dtype}")
            found[upcast, dtype] = cache_identity(config, "parallel").fields["teacher.vae_dtype"]
            vae = VaeEncoder.from_checkpoint(config.teacher.checkpoint, getattr(torch, dtype)).vae
            assert str(vae.dtype) == f"torch.{found[upcast, dtype]}"
    assert found[True, "float16"] == "float32" and found[False, "float16"] == "float16"
    assert found[True, "float32"] == found[False, "float32"] == "float32"


def test_the_vae_runs_in_float32_whatever_the_teacher_runs_in(setup: Callable[..., Config]) -> None:
    """Older caches, whose VAE ran as the teacher did, are still completed where that is asked for."""
    new, old = setup("teacher.dtype=bfloat16"), setup("teacher.dtype=bfloat16", "teacher.vae_dtype=bfloat16")
    fields = {name: cache_identity(config, "parallel").fields for name, config in {"new": new, "old": old}.items()}
    assert fields["new"]["teacher.vae_dtype"] == "float32" and fields["old"]["teacher.vae_dtype"] == "bfloat16"
    former = Identity({name: value for name, value in fields["old"].items() if name != "teacher.vae_dtype"})
    Cache.create_or_resume(old.cache_dir("parallel"), former)
    assert Cache.create_or_resume(old.cache_dir("parallel"), cache_identity(old, "parallel")).identity == former
    with pytest.raises(IdentityError, match=r"teacher\.vae_dtype"):
        Cache.create_or_resume(new.cache_dir("parallel"), cache_identity(new, "parallel"))


def test_a_random_crop_is_another_cache(setup: Callable[..., Config]) -> None:
    centre, random = cache_identity(setup(), "culture"), cache_identity(setup("cache.crop=random"), "culture")
    assert "cache.crop" not in centre.fields and random.fields["cache.crop"] == "random"
    directory = setup().cache_dir("culture")
    Cache.create_or_resume(directory, centre)
    with pytest.raises(IdentityError, match=r"cache\.crop"):
        Cache.create_or_resume(directory, random)


def test_a_teacher_without_a_mid_block(setup: Callable[..., Config]) -> None:
    """As KOALA, BK-SDM and tiny-sd are."""
    checkpoint = setup().teacher.checkpoint
    config = json.loads((checkpoint / "unet/config.json").read_text())
    UNet2DConditionModel.from_config(config | {"mid_block_type": None}).save_pretrained(checkpoint / "unet")
    blocks = cache_identity(setup(), "parallel").blocks
    assert "mid_block" not in blocks and blocks == Teacher.from_checkpoint(checkpoint).blocks


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
    with pytest.raises(CheckpointError, match="no UNet configuration"):
        cache_identity(setup(), "parallel")


def test_digests_are_remembered_but_never_stale(setup: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    from pea.models import tensor_files

    reads: list[object] = []
    real = tensor_files._content
    monkeypatch.setattr(tensor_files, "_content", lambda file, tensor: reads.append(tensor) or real(file, tensor))
    folder = setup().teacher.checkpoint / "unet"
    first, count = tensor_files.digest_of(folder), len(reads)
    assert count > 10 and tensor_files.digest_of(folder) == first and len(reads) == count
    change_tensor(folder / "diffusion_pytorch_model.safetensors")
    assert tensor_files.digest_of(folder) != first and len(reads) == 2 * count


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
    with pytest.raises(CacheError, match="another format version; expected 1 or 2; got 99"):
        Cache.open(make_cache.directory)


def test_plans_are_in_tar_order() -> None:
    assert [plan.tar for plan in new_manifest(identity(["c", "a", "b"])).parts] == ["a", "b", "c"]
    assert isinstance(identity(), Identity)
