"""Scorers that are CLIPs: the score is the published one in each form, and what is not whole is refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPModel

from pea.errors import CheckpointError
from pea.evaluation.scorers.clip_scorers import EnglishClip, HumanPreferenceScore, PickScore
from pea.evaluation.scorers.pixels import cropped_pixels, letterboxed_pixels
from tests.evaluation.scorers.published_files import (
    SIZE_PX,
    TEXTS,
    images,
    make_clip,
    open_clip_state,
    write_hps,
)
from tests.hostile_pickles import Payload
from tests.models.imports.originals import original
from tests.tiny_models import clip_tokenizer


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CLIPModel]:
    folder = tmp_path_factory.mktemp("clip") / "clip"
    return folder, make_clip(folder)


def _cosines(model: CLIPModel, pixels: torch.Tensor) -> Any:
    """Of images with their texts, by the library's own forward pass."""
    tokens = clip_tokenizer()(TEXTS, padding=True, truncation=True, max_length=12, return_tensors="pt")
    with torch.no_grad():
        output = model(pixel_values=pixels, **tokens)
    return (output.image_embeds * output.text_embeds).sum(-1).numpy()


def test_pick_score_is_the_cosine_times_the_learnt_factor(clip: tuple[Path, CLIPModel]) -> None:
    folder, model = clip
    shown = images()
    scorer = PickScore.load(folder)
    cosines = _cosines(model, cropped_pixels(shown, SIZE_PX))
    scores = scorer.score(shown, TEXTS)
    assert scores.dtype == np.float32 and scores.shape == (3,)
    np.testing.assert_allclose(scores, cosines * model.logit_scale.exp().item(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(EnglishClip.load(folder).score(shown, TEXTS), cosines, rtol=1e-5, atol=1e-6)
    assert abs(scorer.score(shown[:1], TEXTS[:1])[0] - scores[0]) < 1e-4, "each image by itself"
    assert scorer.score(shown[:0], []).shape == (0,)


def test_hps_v2_is_the_cosine_of_the_whole_image(clip: tuple[Path, CLIPModel], tmp_path: Path) -> None:
    wide = images(width=40)
    scorer = HumanPreferenceScore.load(write_hps(tmp_path, clip[1]))
    expected = _cosines(clip[1], letterboxed_pixels(wide, SIZE_PX))
    np.testing.assert_allclose(scorer.score(wide, TEXTS), expected, rtol=1e-5, atol=1e-6)
    by_file = HumanPreferenceScore.load(tmp_path / "HPS_v2.1_compressed.pt")
    assert by_file.digest == scorer.digest


@pytest.mark.slow
def test_every_form_of_a_clip_is_the_same_scorer(clip: tuple[Path, CLIPModel], tmp_path: Path) -> None:
    folder, model = clip
    bins, opened = tmp_path / "bin", tmp_path / "open"
    shutil.copytree(folder, bins)
    (bins / "model.safetensors").unlink()
    position_ids = {"text_model.embeddings.position_ids": torch.arange(12)[None]}
    torch.save(model.state_dict() | position_ids, bins / "pytorch_model.bin")
    write_hps(opened, model)
    (opened / "HPS_v2.1_compressed.pt").unlink()
    save_file(open_clip_state(model), opened / "open_clip_model.safetensors")
    shutil.copy(folder / "config.json", opened)  # the hub's folders have both
    shown = images()
    scores = [EnglishClip.load(place).score(shown, TEXTS) for place in (folder, bins, opened)]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-6)
    np.testing.assert_allclose(scores[2], scores[0], rtol=1e-6)
    assert EnglishClip.load(bins).digest == EnglishClip.load(folder).digest
    other = make_clip(tmp_path / "other", seed=2)
    assert other is not None and EnglishClip.load(tmp_path / "other").digest != EnglishClip.load(folder).digest


def _without(state: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: tensor for key, tensor in state.items() if key != name}


FAULTS = {
    "missing": (lambda s: _without(s, "visual.transformer.resblocks.1.mlp.c_fc.bias"), "1 missing .*layers.1.mlp.fc1"),
    "foreign": (lambda s: s | {"score_predictor.weight": torch.zeros(2)}, r"1 unknown \(score_predictor.weight\)"),
    "mismatched": (lambda s: s | {"visual.ln_post.bias": torch.zeros(5)}, r"1 of another shape .*post_layernorm.bias"),
    "cut": (lambda s: _without(s, "text_projection"), "a tensor of this CLIP is missing; expected text_projection"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_of_other_tensors_is_refused_in_one_line(
    clip: tuple[Path, CLIPModel], tmp_path: Path, fault: str
) -> None:
    change, expected = FAULTS[fault]
    write_hps(tmp_path, clip[1])
    torch.save({"state_dict": change(open_clip_state(clip[1]))}, tmp_path / "HPS_v2.1_compressed.pt")
    with pytest.raises(CheckpointError, match=expected) as caught:
        HumanPreferenceScore.load(tmp_path)
    assert "\n" not in str(caught.value) and "HPS_v2.1_compressed.pt" in str(caught.value)


def test_what_is_absent_is_named(clip: tuple[Path, CLIPModel], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: no such file or folder.*evaluate.scorers"):
        PickScore.load(tmp_path / "nowhere")
    write_hps(tmp_path / "hps", clip[1])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "hps" / name).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"no tokenizer beside the weights.*Copy them there"):
        HumanPreferenceScore.load(tmp_path / "hps")
    clip_tokenizer().save_pretrained(tmp_path / "hps")
    (tmp_path / "hps" / "open_clip_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"nothing says how many heads .* expected open_clip_config.json"):
        EnglishClip.load(tmp_path / "hps")
    with pytest.raises(CheckpointError, match="a CLIP of other sizes than the published"):
        HumanPreferenceScore.load(tmp_path / "hps")
    (tmp_path / "hps" / "open_clip_config.json").write_text('{"model_cfg": {"text_cfg": 3}}')
    with pytest.raises(CheckpointError, match=r"open_clip_config.json: not a configuration of open_clip"):
        EnglishClip.load(tmp_path / "hps")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no file of weights"):
        EnglishClip.load(tmp_path / "empty")


def test_another_models_tokenizer_is_refused(clip: tuple[Path, CLIPModel], tmp_path: Path) -> None:
    shutil.copytree(clip[0], tmp_path / "clip")
    tokenizer = clip_tokenizer()
    tokenizer.add_tokens(["cat</w>"])
    tokenizer.save_pretrained(tmp_path / "clip")
    with pytest.raises(CheckpointError, match="the tokenizer is not this model's; expected 54 tokens"):
        PickScore.load(tmp_path / "clip")


def test_a_pickle_that_runs_something_is_not_opened(tmp_path: Path) -> None:
    torch.save({"state_dict": Payload(tmp_path / "it ran")}, tmp_path / "HPS_v2_compressed.pt")
    with pytest.raises(CheckpointError, match="the file holds more than plain tensors, and nothing in it is run"):
        HumanPreferenceScore.load(tmp_path)
    assert not (tmp_path / "it ran").exists()


def test_hps_v2_as_open_clip_reads_it(tmp_path: Path) -> None:
    module = original("open_clip.model")
    torch.manual_seed(0)
    text = {"context_length": 12, "vocab_size": 54, "width": 16, "heads": 2, "layers": 2}
    vision = {"image_size": SIZE_PX, "layers": 2, "width": 24, "head_width": 12, "patch_size": 8}
    model = module.CLIP(embed_dim=12, vision_cfg=vision, text_cfg=text).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    write_hps(tmp_path, make_clip(tmp_path / "other"))
    torch.save({"state_dict": model.state_dict()}, tmp_path / "HPS_v2.1_compressed.pt")
    said = {"model_cfg": {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(said))
    shown = images()
    tokens = clip_tokenizer()(TEXTS, padding="max_length", truncation=True, max_length=12, return_tensors="pt")
    end = 53
    ids = torch.where(tokens["attention_mask"] == 1, tokens["input_ids"], 0)  # as open_clip pads
    assert (ids == end).sum() == len(TEXTS)
    with torch.no_grad():
        features = model(letterboxed_pixels(shown, SIZE_PX), ids)
    expected = (features[0] * features[1]).sum(-1).numpy()
    np.testing.assert_allclose(HumanPreferenceScore.load(tmp_path).score(shown, TEXTS), expected, rtol=1e-4, atol=1e-5)


def test_images_as_they_are_shown() -> None:
    """The middle is cut out for CLIP; for HPSv2 the whole image stays, between black bars."""
    wide = np.full((1, 8, 24, 3), 255, np.uint8)
    wide[:, :, :8] = 0
    white = (1 - torch.tensor([0.48145466, 0.4578275, 0.40821073])) / torch.tensor([0.26862954, 0.26130258, 0.27577711])
    cropped, boxed = cropped_pixels(wide, 8)[0], letterboxed_pixels(wide, 24)[0]
    torch.testing.assert_close(cropped, white[:, None, None].expand(3, 8, 8))
    resized = letterboxed_pixels(np.repeat(wide, 2, axis=2), 24)[0]
    for whole in (boxed, resized):
        assert whole.shape == (3, 24, 24)
        torch.testing.assert_close(whole[:, 12, 20], white)
        assert (whole[:, 0] < -1).all() and (whole[:, -1] < -1).all() and (whole[:, 12, 0] < -1).all()
