"""Unmodified diffusers pipelines draw from native prompts."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from pea.errors import CheckpointError
from pea.models.adapter import PEA, new_adapter
from pea.models.encoders.places import record_with_places, recorded_encoder
from pea.models.native import NativeEncoder
from pea.models.unet import unet_config
from pea.pipeline import PEAPrompt
from pea.storage import Location
from tests.tiny_models import make_checkpoint, make_native_encoder


@pytest.fixture(scope="module", params=[pytest.param("sd15", marks=pytest.mark.slow), "sdxl"])
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, PEAPrompt, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = make_checkpoint(folder / "teacher", request.param)
    encoder = make_native_encoder(folder / "zh")
    adapter = new_adapter(unet_config(checkpoint), 16, hidden_size=8, num_layers=2, max_tokens=10, seed=0)
    record = record_with_places(NativeEncoder.from_pretrained(encoder).record, [encoder])
    adapter.register_to_config(encoder=record)
    adapter.save_pretrained(folder / "adapter")
    kind = StableDiffusionXLPipeline if request.param == "sdxl" else StableDiffusionPipeline
    pipe = kind.from_pretrained(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    return pipe, PEAPrompt.from_pretrained(folder / "adapter", encoder), folder


def _draw(pipe: Any, **options: Any) -> np.ndarray:
    images: np.ndarray = pipe(**options, num_inference_steps=2, output_type="np", height=16, width=16).images
    return images


def test_one_prompt_a_batch_and_several_images(setup: tuple[Any, PEAPrompt, Path]) -> None:
    pipe, pea, _ = setup
    assert _draw(pipe, **pea("一只猫")).shape == (1, 16, 16, 3)
    assert _draw(pipe, **pea(["一只猫", "红球"])).shape == (2, 16, 16, 3)
    assert _draw(pipe, **pea(["一只猫", "红球"], negative_prompt="小")).shape == (2, 16, 16, 3)
    assert _draw(pipe, **pea("一只猫"), num_images_per_prompt=3).shape == (3, 16, 16, 3)


def test_the_negative_prompt_is_the_empty_one_by_default(setup: tuple[Any, PEAPrompt, Path]) -> None:
    _, pea, _ = setup
    embeds = pea(["一只猫", "红球"])
    empty = pea.encode([""]).encoder_hidden_states
    assert np.allclose(embeds["negative_prompt_embeds"][1], empty[0])
    with pytest.raises(ValueError, match="3 negative prompts for 2 prompts"):
        pea(["一只猫", "红球"], negative_prompt=["", "", ""])


def test_an_adapter_finds_its_encoder(
    setup: tuple[Any, PEAPrompt, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, pea, folder = setup
    monkeypatch.chdir(tmp_path)
    found = PEAPrompt.from_pretrained(folder / "adapter")
    assert found.encoder.folder == folder / "zh"
    assert torch.equal(found("一只猫")["prompt_embeds"], pea("一只猫")["prompt_embeds"])
    config = json.loads((folder / "adapter/config.json").read_text())
    for places, got in (([str(tmp_path / "gone")], "no such folder"), (None, "a name without a place")):
        shutil.copytree(folder / "adapter", tmp_path / "moved", dirs_exist_ok=True)
        own = config["encoder"] | {"places": places}
        (tmp_path / "moved/config.json").write_text(json.dumps(config | {"encoder": own}))
        with pytest.raises(CheckpointError, match=f"text encoder is not here; expected zh; got {got}. Give") as caught:
            PEAPrompt.from_pretrained("moved")
        assert "\n" not in str(caught.value)
    assert PEAPrompt.from_pretrained("moved", folder / "zh").encoder.width == 16
    with pytest.raises(CheckpointError, match="a revision is for org/name of the hub"):
        PEAPrompt.from_pretrained(folder / "adapter", revision="main")


def test_places_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder the whole path, of a bucket its URL, and of the hub nothing but its name."""
    monkeypatch.chdir(tmp_path)
    url, hub = "s3://bucket/inputs/zh", "org/zh@v1"
    places = [Path("zh"), Location.parse(url), hub]
    kept = record_with_places({"name": "zh + zh + org/zh@v1"}, places)
    assert kept["places"] == [str(tmp_path / "zh"), url, hub]
    assert "places" not in record_with_places({"name": hub}, [Path(hub)])
    monkeypatch.setattr(Location, "exists", lambda self: True)
    assert recorded_encoder(kept, "x") == [tmp_path / "zh", Location.parse(url), hub]
    with pytest.raises(CheckpointError, match="does not say which text encoder"):
        recorded_encoder(None, "x")


def test_devices_and_types(setup: tuple[Any, PEAPrompt, Path]) -> None:
    _, pea, folder = setup
    half = PEAPrompt.from_pretrained(folder / "adapter", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and half.device == torch.device("cpu")
    assert half("一只猫")["prompt_embeds"].dtype == torch.bfloat16
    assert next(half.encoder.parts[0].model.parameters()).dtype == torch.bfloat16
    assert PEAPrompt.from_pretrained(folder / "adapter", torch_dtype=torch.bfloat16).dtype == torch.bfloat16
    moved = PEAPrompt.from_pretrained(folder / "adapter")
    assert moved.to(torch.float16) is moved and moved.dtype == torch.float16
    assert moved.to("cpu").dtype == torch.float16, "a device alone leaves the type"
    assert torch.equal(moved("一只猫")["prompt_embeds"], pea("一只猫")["prompt_embeds"].half())
    assert moved.to("cpu", torch.float64).to(dtype=torch.float32).dtype == torch.float32


def test_numbers_beyond_half_precision_are_no_black_image(setup: tuple[Any, PEAPrompt, Path]) -> None:
    _, _, folder = setup
    pea = PEAPrompt.from_pretrained(folder / "adapter", dtype=torch.float16)
    pea.adapter.layernorm.weight.data *= 1e6
    with pytest.raises(CheckpointError, match=r"left the range of numbers; got float16.*bfloat16"):
        pea("一只猫")


def test_lost_and_unknown_text_is_said(setup: tuple[Any, PEAPrompt, Path]) -> None:
    _, pea, _ = setup
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pea("一只猫", "小")
    with pytest.warns(UserWarning, match="reads 10 tokens; lost of a prompt: '雪草'") as warned:
        cut = pea("一只猫狗红球大小雪草")
    assert {each.filename for each in warned} == {__file__}, "the line that is shown is the user's"
    assert torch.equal(cut["prompt_embeds"], pea("一只猫狗红球大小")["prompt_embeds"])
    [note] = pea.notes(["雪" * 5000])
    assert len(note) < 400 and "…'" in note
    with pytest.warns(UserWarning, match="lost of a prompt: '草'"):
        pea("一只猫", negative_prompt=["雪" * 8 + "草"])
    with pytest.warns(UserWarning, match="does not know '龙', '凤' in '一只龙和凤'|does not know '龙', '和', '凤'"):
        pea("一只龙和凤")


def test_a_long_prompt_in_pieces(setup: tuple[Any, PEAPrompt, Path]) -> None:
    pipe, pea, folder = setup
    long = PEAPrompt.from_pretrained(folder / "adapter", chunk=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embeds, short = long("一只猫狗红球大小雪草"), long("一只猫")
    parts = pea.encode(["一只猫狗红球大小", "雪草", ""])
    states = parts.encoder_hidden_states
    assert torch.allclose(embeds["prompt_embeds"][0], torch.cat([states[0], states[1]]), atol=1e-6)
    assert torch.allclose(embeds["negative_prompt_embeds"][0], torch.cat([states[2], states[2]]), atol=1e-6)
    assert torch.equal(short["prompt_embeds"], pea("一只猫")["prompt_embeds"]), "a short one is as ever"
    both = long(["一只猫", "一只猫狗红球大小雪草"])
    if parts.pooled_prompt_embeds is not None:
        mean = parts.pooled_prompt_embeds[:2].mean(0)
        assert torch.allclose(embeds["pooled_prompt_embeds"][0], mean, atol=1e-6)
        assert torch.allclose(
            both["pooled_prompt_embeds"], torch.stack([short["pooled_prompt_embeds"][0], mean]), atol=1e-6
        )
    assert _draw(pipe, **both).shape == (2, 16, 16, 3)


def test_an_encoder_of_another_width_is_refused(setup: tuple[Any, PEAPrompt, Path]) -> None:
    _, pea, folder = setup
    config = unet_config(folder / "teacher")
    other = new_adapter(config, 24, hidden_size=8, num_layers=2, max_tokens=10, seed=0)
    with pytest.raises(CheckpointError, match=r"another text encoder.*width 24.*got 16"):
        PEAPrompt(other, pea.encoder)


def test_an_encoder_of_the_same_width_is_refused_by_content(setup: tuple[Any, PEAPrompt, Path], tmp_path: Path) -> None:
    _, pea, folder = setup
    other = make_native_encoder(tmp_path / "other", seed=2)
    with pytest.raises(
        CheckpointError, match=r"another text encoder; expected zh with tensors \w+; got other"
    ) as caught:
        PEAPrompt.from_pretrained(folder / "adapter", other)
    assert "\n" not in str(caught.value) and "own text encoder, zh" in str(caught.value)
    assert PEAPrompt.from_pretrained(folder / "adapter", other, any_encoder=True).encoder.width == 16
    with pytest.raises(CheckpointError, match="expected zh with max_tokens 10; got zh with max_tokens 8"):
        PEAPrompt(pea.adapter, NativeEncoder.from_pretrained(folder / "zh", reading={"max_tokens": 8}))
    shutil.copytree(folder / "zh", tmp_path / "cased")
    settings = json.loads((tmp_path / "cased/tokenizer_config.json").read_text())
    settings["padding_side"] = "left"
    (tmp_path / "cased/tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="with tokenizer"):
        PEAPrompt.from_pretrained(folder / "adapter", tmp_path / "cased")


def test_the_same_tensors_computed_with_otherwise_are_another_encoder(
    setup: tuple[Any, PEAPrompt, Path], tmp_path: Path
) -> None:
    """As with a hand-made config.json of `gelu` for a CLIP of `quick_gelu`; an older adapter takes it."""
    _, _, folder = setup
    shutil.copytree(folder / "zh", tmp_path / "zh")
    shutil.copytree(folder / "adapter", tmp_path / "adapter")
    path = tmp_path / "zh/config.json"
    config = json.loads(path.read_text())
    former = config["text_config"].get("hidden_act", "gelu")
    config["text_config"] |= {"hidden_act": "relu", "initializer_range": 0.5}
    path.write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError,
        match=f"another text encoder; expected zh with hidden_act {former}; got zh with hidden_act relu",
    ) as caught:
        PEAPrompt.from_pretrained(tmp_path / "adapter", tmp_path / "zh")
    assert "\n" not in str(caught.value)
    path = tmp_path / "adapter/config.json"
    config = json.loads(path.read_text())
    del config["encoder"]["computed_with"]
    path.write_text(json.dumps(config))
    assert PEAPrompt.from_pretrained(tmp_path / "adapter", tmp_path / "zh").encoder.width == 16


def test_the_same_encoder_elsewhere_and_otherwise_packed_is_taken(
    setup: tuple[Any, PEAPrompt, Path], tmp_path: Path
) -> None:
    """Under another name, in shards, without its vision tower, saved by another program."""
    _, pea, folder = setup
    shutil.copytree(folder / "zh", tmp_path / "copy")
    tensors = load_file(tmp_path / "copy/model.safetensors")
    (tmp_path / "copy/model.safetensors").unlink()
    text = {name: tensor for name, tensor in tensors.items() if name.startswith("text_model.")}
    parts = [dict(list(text.items())[::2]), dict(list(text.items())[1::2])]
    for number, part in enumerate(parts):
        save_file(part, tmp_path / f"copy/m{number}.safetensors", metadata={"format": "pt"})
    index = {name: f"m{number}.safetensors" for number, part in enumerate(parts) for name in part}
    (tmp_path / "copy/model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    moved = PEAPrompt.from_pretrained(folder / "adapter", tmp_path / "copy")
    assert np.array_equal(moved("一只猫")["prompt_embeds"], pea("一只猫")["prompt_embeds"])


def test_an_adapter_from_before_the_record_is_taken_and_said(
    setup: tuple[Any, PEAPrompt, Path], tmp_path: Path
) -> None:
    _, _, folder = setup
    shutil.copytree(folder / "adapter", tmp_path / "old")
    config = json.loads((tmp_path / "old/config.json").read_text())
    for name in ("encoder", "base_model", "prediction_type", "languages"):
        del config[name]
    (tmp_path / "old/config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="old: the adapter does not say which text encoder"):
        PEAPrompt.from_pretrained(tmp_path / "old", folder / "zh")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            PEA.load(tmp_path / "old")
    assert len(caught) == 1


@pytest.mark.parametrize("prompt", [None, 5, [], [None], ["猫", 5], b"x", [["猫"]], {"猫": 1}, "猫\ud800"])
def test_what_is_no_prompt_is_said_in_one_line(setup: tuple[Any, PEAPrompt, Path], prompt: Any) -> None:
    _, pea, _ = setup
    for ask in (pea, lambda words: pea("猫", [words]), pea.encode):
        with pytest.raises(ValueError, match=r"a prompt is a text, or a list|half a character in a prompt") as caught:
            ask(prompt)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_one_text_is_one_prompt(setup: tuple[Any, PEAPrompt, Path]) -> None:
    _, pea, _ = setup
    assert torch.equal(pea.encode("一只猫").encoder_hidden_states, pea.encode(["一只猫"]).encoder_hidden_states)


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((None,), {}, "neither a folder nor a name.*got None"),
        ((5,), {}, "neither a folder nor a name"),
        (([],), {}, "neither a folder nor a name"),
        (("adapter", 5), {}, "neither a folder nor a name"),
        (("adapter", [None]), {}, "neither a folder nor a name"),
        (("adapter",), {"dtype": "float16"}, "not a dtype.*got 'float16'"),
        (("adapter",), {"torch_dtype": torch.int8}, "not a dtype.*got torch.int8"),
    ],
)
def test_arguments_of_other_kinds_are_refused(
    setup: tuple[Any, PEAPrompt, Path], arguments: Any, options: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(setup[2])
    with pytest.raises(CheckpointError, match=said) as caught:
        PEAPrompt.from_pretrained(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_folders_that_an_adapter_of_the_hub_names_are_not_looked_for(setup: tuple[Any, PEAPrompt, Path]) -> None:
    record = {"name": "zh", "places": [str(setup[2] / "zh")]}
    assert recorded_encoder(record, setup[2] / "adapter") == [setup[2] / "zh"]
    with pytest.raises(CheckpointError, match="is not here; expected zh; got a name without a place"):
        recorded_encoder(record, "org/adapter@main")


def test_nothing_is_saved_over_a_file(setup: tuple[Any, PEAPrompt, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="not a folder"):
        setup[1].save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_negative_embeddings_of_another_length_are_refused(setup: tuple[Any, PEAPrompt, Path]) -> None:
    """English ones, of 77 tokens, beside native ones of 52."""
    pipe, pea, _ = setup
    own = pea("小")
    given = {f"negative_{name}": own[name] for name in own if not name.startswith("negative_")}
    pea.attach(pipe)
    try:
        assert _draw(pipe, prompt="一只猫", **given).shape == (1, 16, 16, 3)
        for other in (own["prompt_embeds"][:, :-1], own["prompt_embeds"].repeat(2, 1, 1)):
            with pytest.raises(CheckpointError, match="negative_prompt_embeds of another shape than the prompt's"):
                _draw(pipe, prompt="一只猫", **given | {"negative_prompt_embeds": other})
    finally:
        pea.detach(pipe)
