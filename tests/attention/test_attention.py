"""Cross-attention layers alone: the same answers as inside the UNet; the loss; cached queries."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from pea.attention.layers import AttentionLayers
from pea.attention.queries import AttentionTargets, LayerQueries, QueryLayout, encode_queries, read_queries
from pea.cache import Cache
from pea.cache.schema import TEXT_POOLED, TEXT_STATES
from pea.config import AttentionConfig, Config
from pea.draws.recipe import DrawRecipe, query_positions
from pea.errors import CheckpointError, ConfigError
from pea.models.conditioning import Conditioning
from pea.models.english import EnglishEncoder
from pea.models.unet import Teacher, unet_config
from pea.models.unet_shapes import query_shapes
from tests.collect.test_collector import collect, contents, with_cache
from tests.tiny_models import Shape, make_checkpoint

RECIPE = DrawRecipe(3, 0.1, 1000)
TIME_IDS = torch.tensor([[16, 16, 0, 0, 16, 16], [32, 24, 0, 4, 16, 16]])


@pytest.fixture(scope="module", params=[pytest.param("sd15", marks=pytest.mark.slow), "sdxl"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape: Shape = request.param
    return make_checkpoint(tmp_path_factory.mktemp("attention") / shape, shape)


def ask(checkpoint: Path, text: Conditioning) -> tuple[dict[str, LayerQueries], dict[str, torch.Tensor]]:
    """All queries, and what each cross-attention layer gave, in one pass of the real UNet."""
    teacher = Teacher.from_checkpoint(checkpoint, query_layers="all")
    given: dict[str, torch.Tensor] = {}

    def keeper(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: given.update({name: output})

    for name in teacher.query_layers:
        teacher.unet.get_submodule(name).register_forward_hook(keeper(name))
    shapes = query_shapes(unet_config(checkpoint), (8, 8))
    positions = {name: torch.arange(count).expand(2, -1) for name, (count, _) in shapes.items()}
    latents = random(1, 2, 4, 8, 8)
    with torch.no_grad():
        output = teacher.forward(latents, torch.tensor([10, 700]), text, TIME_IDS, positions)
    rows = torch.arange(2)
    return {name: LayerQueries(rows, queries) for name, queries in output.queries.items()}, given


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def english(checkpoint: Path, *texts: str) -> Conditioning:
    return EnglishEncoder.from_checkpoint(checkpoint).encode(list(texts))


def test_layers_answer_as_inside_the_unet(checkpoint: Path) -> None:
    text = english(checkpoint, "a cat", "red ball")
    queries, inside = ask(checkpoint, text)
    alone = AttentionLayers.from_checkpoint(checkpoint)(queries, text.encoder_hidden_states)
    assert alone.keys() == inside.keys() and len(alone) >= 2
    for name, output in alone.items():
        torch.testing.assert_close(output, inside[name], atol=1e-5, rtol=1e-5)


def test_english_text_has_no_loss_and_other_text_has(checkpoint: Path) -> None:
    text, other = english(checkpoint, "a cat", "red ball"), english(checkpoint, "snow", "green grass")
    queries, _ = ask(checkpoint, text)
    layers = AttentionLayers.from_checkpoint(checkpoint)
    powers = layers.powers(AttentionTargets(queries, text, TIME_IDS))
    assert layers.losses(AttentionTargets(queries, text, TIME_IDS), text, powers).total.item() == 0
    losses = layers.losses(AttentionTargets(queries, text, TIME_IDS), other, powers)
    assert losses.total.item() > 1e-6 and (losses.pooled is None) == (text.pooled_prompt_embeds is None)
    assert set(losses.report()) == {"loss", "attention"} | ({"pooled"} if losses.pooled is not None else set())


def test_pooled_term_is_the_unets_own_embedding(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "sdxl", "sdxl")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    text = english(folder, "a cat", "red ball")
    added = {"text_embeds": text.pooled_prompt_embeds, "time_ids": TIME_IDS}
    with torch.no_grad():
        expected = unet.get_aug_embed(torch.zeros(2, 1), text.encoder_hidden_states, added)
    layers = AttentionLayers.from_checkpoint(folder)
    assert layers.pooled is not None and text.pooled_prompt_embeds is not None
    torch.testing.assert_close(layers.pooled(text.pooled_prompt_embeds, TIME_IDS), expected, atol=1e-6, rtol=1e-5)


def test_layer_weights_choose_layers(checkpoint: Path) -> None:
    text, other = english(checkpoint, "a cat", "red ball"), english(checkpoint, "snow", "green grass")
    queries, inside = ask(checkpoint, text)
    layers = AttentionLayers.from_checkpoint(checkpoint)
    first, *rest = layers.names
    powers = layers.powers(AttentionTargets(queries, text, TIME_IDS))
    losses = layers.losses(AttentionTargets(queries, text, TIME_IDS), other, powers, dict.fromkeys(rest, 0.0))
    answer = layers(queries, other.encoder_hidden_states)[first]
    expected = (answer - inside[first]).square().mean() / inside[first].square().mean()
    torch.testing.assert_close(losses.layers, expected, atol=1e-6, rtol=1e-4)


def test_records_with_a_few_layers_each_expect_the_loss_over_all(checkpoint: Path) -> None:
    text, other = english(checkpoint, "a cat", "red ball"), english(checkpoint, "snow", "green grass")
    queries, _ = ask(checkpoint, text)
    layers = AttentionLayers.from_checkpoint(checkpoint)
    powers = layers.powers(AttentionTargets(queries, text, TIME_IDS))
    whole = layers.losses(AttentionTargets(queries, text, TIME_IDS), other, powers).layers
    names, parts = layers.names, []
    for kept in itertools.product(names, repeat=2):  # every way in which each of the two records keeps one layer
        few = {}
        for name in set(kept):
            rows = torch.tensor([row for row in range(2) if kept[row] == name])
            few[name] = LayerQueries(rows, queries[name].queries[rows], 1 / len(names))
        parts.append(layers.losses(AttentionTargets(few, text, TIME_IDS), other, powers).layers)
    torch.testing.assert_close(torch.stack(parts).mean(), whole, atol=1e-6, rtol=1e-5)


def test_gradient_reaches_the_text_alone(checkpoint: Path) -> None:
    text = english(checkpoint, "a cat", "red ball")
    queries, _ = ask(checkpoint, text)
    layers = AttentionLayers.from_checkpoint(checkpoint)
    hidden = (text.encoder_hidden_states + 0.1).requires_grad_()
    student, powers = (
        Conditioning(hidden, text.pooled_prompt_embeds),
        layers.powers(AttentionTargets(queries, text, TIME_IDS)),
    )
    layers.losses(AttentionTargets(queries, text, TIME_IDS), student, powers).total.backward()
    assert hidden.grad is not None and hidden.grad.abs().sum() > 0
    assert not list(layers.parameters())


def test_only_the_layers_needed_are_read(checkpoint: Path) -> None:
    layers = AttentionLayers.from_checkpoint(checkpoint)
    held = sum(tensor.numel() for tensor in layers.buffers())
    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    assert held < 0.5 * sum(parameter.numel() for parameter in unet.parameters())


def test_unknown_layer(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such cross-attention layer.*got mid_block\.nowhere"):
        AttentionLayers.from_checkpoint(checkpoint, ["mid_block.nowhere"])


def test_missing_weights(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "sd15", "sd15")
    file, layer = folder / "unet" / "diffusion_pytorch_model.safetensors", "mid_block.attentions.0.transformer_blocks.0"
    tensors = load_file(file)
    del tensors[f"{layer}.attn2.to_v.weight"]
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"the UNet lacks a tensor; expected mid_block\..*attn2\.to_v\.weight"):
        AttentionLayers.from_checkpoint(folder)
    file.unlink()
    with pytest.raises(CheckpointError, match="no safetensors weights"):
        AttentionLayers.from_checkpoint(folder)


def test_the_files_read_are_those_of_the_whole_model(checkpoint: Path, tmp_path: Path) -> None:
    """Shards, and not what lies beside them under another name."""
    expected = AttentionLayers.from_checkpoint(checkpoint)
    shutil.copytree(checkpoint, tmp_path / "copy")
    file = tmp_path / "copy" / "unet" / "diffusion_pytorch_model.safetensors"
    unet = UNet2DConditionModel.from_pretrained(file.parent)
    file.unlink()
    unet.save_pretrained(file.parent, max_shard_size="20KB")
    assert len(list(file.parent.glob("*.safetensors"))) > 2
    save_file({"other": torch.zeros(1)}, file.with_name("other_model.safetensors"))
    for one, other in zip(
        expected.buffers(), AttentionLayers.from_checkpoint(tmp_path / "copy").buffers(), strict=True
    ):
        assert torch.equal(one, other)


def test_positions_belong_to_the_record() -> None:
    ids = [f"tar/{number}" for number in range(2000)]
    rows = query_positions(RECIPE, "a.attn2", ids, 1, 10, 3)
    assert all(len(set(row)) == 3 for row in rows.tolist())
    counts = np.bincount(rows.ravel(), minlength=10)
    assert abs(counts - 600).max() < 100  # five standard deviations
    np.testing.assert_array_equal(rows[7:9], query_positions(RECIPE, "a.attn2", ids[7:9], 1, 10, 3))
    assert not np.array_equal(rows, query_positions(RECIPE, "b.attn2", ids, 1, 10, 3))
    assert not np.array_equal(rows, query_positions(RECIPE, "a.attn2", ids, 2, 10, 3))


def test_all_positions_where_few_exist() -> None:
    assert query_positions(RECIPE, "a.attn2", ["x", "y"], 0, 4, 9).tolist() == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_stored_queries_are_read_back(dtype: str) -> None:
    queries = (
        torch.randn(3, 4, 32, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1, 100])[:, None, None]
    )
    stored = {f"{prefix}/a.attn2": values.numpy() for prefix, values in encode_queries(queries, dtype).items()}
    back = read_queries(stored, {})["a.attn2"]
    assert back.rows.tolist() == [0, 1, 2] and back.share == 1
    largest = queries.abs().amax(-1, keepdim=True)
    bound = {"float32": 0.0, "float16": 2.0**-11, "int8": 0.5001 / 127}[dtype]
    assert ((back.queries.float() - queries).abs() <= bound * largest).all()


def test_layers_are_drawn_in_proportion_to_their_number() -> None:
    positions = {f"wide.{i}": (16, 8) for i in range(6)} | {f"narrow.{i}": (64, 4) for i in range(2)}
    layout = QueryLayout(positions, (5, 8), None, AttentionConfig(num_queries=3, layers_per_record=4))
    assert [(group.name, group.num_kept) for group in layout.groups] == [("3x8", 3), ("3x4", 1)]
    drawn = layout.draw(RECIPE, [f"tar/{number}" for number in range(2000)], 0)
    counts = np.bincount(drawn.layers["3x8"].ravel(), minlength=6)
    assert abs(counts - 1000).max() < 112  # five standard deviations
    few = QueryLayout(positions, (5, 8), None, AttentionConfig(layers_per_record=1))
    with pytest.raises(ConfigError, match="at least 2"):
        _ = few.groups


def test_kept_layers_are_those_drawn() -> None:
    positions = {f"layer.{i}": (16, 4) for i in range(5)}
    layout = QueryLayout(positions, (5, 8), None, AttentionConfig(num_queries=2, layers_per_record=2, dtype="float32"))
    ids = [f"tar/{number}" for number in range(7)]
    drawn = layout.draw(RECIPE, ids, 1)
    queries = {
        name: torch.randn(7, 2, 4, generator=torch.Generator().manual_seed(i)) for i, name in enumerate(positions)
    }
    stored = layout.rows(queries, drawn)
    back = read_queries(stored, {spec.name: spec for spec in layout.arrays})
    assert sum(len(each.rows) for each in back.values()) == 14
    for place, name in enumerate(positions):
        kept = np.flatnonzero((drawn.layers["2x4"] == place).any(1))
        if len(kept):
            assert back[name].rows.tolist() == kept.tolist() and back[name].share == 0.4
            torch.testing.assert_close(back[name].queries, queries[name][kept], atol=0, rtol=0)


def with_queries(config: Config, folder: Path, **changes: Any) -> Config:
    attention = AttentionConfig(num_queries=5, dtype="float32")
    return with_cache(config.model_copy(update={"run_dir": folder}), attention=attention, **changes)


@pytest.fixture(scope="module")
def cached(tiny_sdxl: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Cache]:
    config = with_queries(tiny_sdxl, tmp_path_factory.mktemp("queries"))
    return config, collect(config)


def test_a_cache_holds_queries_beside_the_rest(cached: tuple[Config, Cache], tiny_sdxl: Config) -> None:
    found, plain = contents(cached[1]), contents(Cache.open(tiny_sdxl.cache_dir("parallel")))
    for name, rows in plain.items():
        np.testing.assert_array_equal(rows, found[name], err_msg=str(name))
    extra = {name[2] for name in found.keys() - plain.keys()}
    assert {TEXT_STATES, TEXT_POOLED} < extra
    assert sum(name.startswith("queries/") and name.endswith(".attn2") for name in extra) == len(extra) - 2


def test_cached_text_is_the_english_encoders(cached: tuple[Config, Cache]) -> None:
    config, cache = cached
    bucket = cache.shards[0].buckets["16x16"]
    rows = bucket.read([TEXT_STATES, TEXT_POOLED], 0, bucket.num_samples)
    text = english(config.teacher.checkpoint, *bucket.captions("en"))
    np.testing.assert_allclose(rows[TEXT_STATES], text.encoder_hidden_states.numpy(), atol=1e-5)
    assert text.pooled_prompt_embeds is not None
    np.testing.assert_allclose(rows[TEXT_POOLED], text.pooled_prompt_embeds.numpy(), atol=1e-5)


@pytest.mark.slow
def test_queries_without_block_sketches(tiny_sdxl: Config, tmp_path: Path, cached: tuple[Config, Cache]) -> None:
    found = contents(collect(with_queries(tiny_sdxl, tmp_path, blocks=())))
    both = contents(cached[1])
    assert not any("features" in name[2] for name in found)
    for name, rows in found.items():
        np.testing.assert_array_equal(rows, both[name], err_msg=str(name))
