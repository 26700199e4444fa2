"""An attached pipeline draws what it draws from the embeddings, bit for bit, and English again afterwards."""

from __future__ import annotations

import pickle
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DiffusionPipeline, UNet2DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from pea.errors import CheckpointError
from pea.models.unet_values import unet_values
from pea.pipeline import PEAPrompt
from tests.pipeline.pipes import INPUTS, KINDS, draw, make_parts, make_pipe, use_lcm
from tests.tiny_models import Shape, make_checkpoint

pytestmark = pytest.mark.slow


class Setup:
    def __init__(self, folder: Path, shape: Shape) -> None:
        self.folder, self.shape = make_parts(folder, shape), shape
        self.text = KINDS[shape]["text"].from_pretrained(folder / "teacher")
        self.pea = PEAPrompt.from_pretrained(folder / "adapter")

    def pipe(self, kind: str = "text") -> Any:
        return make_pipe(self.text, self.shape, kind)


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(tmp_path_factory.mktemp("only-sdxl"), "sdxl")


def same(setup: Setup, pipe: Any, prompt: Any, negative: Any = None, **options: Any) -> np.ndarray:
    """The attached pipe's images, after comparing them with those of the explicit embeddings."""
    explicit = draw(pipe, **setup.pea(prompt, negative), **options)
    setup.pea.attach(pipe)
    attached = draw(pipe, prompt, negative_prompt=negative, **options)
    setup.pea.detach(pipe)
    assert np.array_equal(explicit, attached)
    return attached


@pytest.mark.parametrize("kind", KINDS["sd15"])
def test_every_kind_of_pipeline(setup: Setup, kind: str) -> None:
    pipe = setup.pipe(kind)
    images = same(setup, pipe, "一只猫", "小", **INPUTS[kind])
    assert images.shape == (1, 16, 16, 3)
    assert not np.array_equal(images, same(setup, pipe, "红球", "小", **INPUTS[kind]))


def test_lists_and_several_images(setup: Setup) -> None:
    pipe, inputs = setup.pipe(), INPUTS["text"]
    assert len(same(setup, pipe, ["一只猫", "红球"], ["小", ""], **inputs)) == 2
    assert len(same(setup, pipe, "一只猫", num_images_per_prompt=3, **inputs)) == 3
    assert len(same(setup, pipe, ["一只猫", "红球"], num_images_per_prompt=2, **inputs)) == 4
    setup.pea.attach(pipe)
    one_for_all = draw(pipe, ["一只猫", "红球"], negative_prompt="小", **inputs)
    setup.pea.detach(pipe)
    assert np.array_equal(one_for_all, draw(pipe, **setup.pea(["一只猫", "红球"], "小"), **inputs))


def test_without_guidance(setup: Setup) -> None:
    """Turbo and LCM."""
    pipe = setup.pipe()
    without = same(setup, pipe, "一只猫", guidance_scale=0.0, **INPUTS["text"])
    assert not np.array_equal(without, same(setup, pipe, "一只猫", guidance_scale=5.0, **INPUTS["text"]))
    use_lcm(pipe)
    same(setup, pipe, "一只猫", guidance_scale=1.0, **INPUTS["text"])


def test_lora(setup: Setup) -> None:
    pipe = setup.pipe()
    before = same(setup, pipe, "一只猫", **INPUTS["text"])
    torch.manual_seed(2)
    lora = LoraConfig(r=2, target_modules=["to_k", "to_v"], init_lora_weights=False)
    pipe.unet.add_adapter(lora)
    try:
        full = same(setup, pipe, "一只猫", **INPUTS["text"])
        half = same(setup, pipe, "一只猫", cross_attention_kwargs={"scale": 0.5}, **INPUTS["text"])
    finally:
        pipe.unet.delete_adapters("default")
    assert not np.array_equal(before, full) and not np.array_equal(full, half)


def test_english_again_after_detaching(setup: Setup) -> None:
    pipe, inputs = setup.pipe(), INPUTS["text"]
    english = draw(pipe, "a cat", **inputs)
    assert setup.pea.attach(pipe) is pipe
    setup.pea.attach(pipe)  # twice is once
    assert not np.array_equal(draw(pipe, "一只猫", **inputs), english)
    setup.pea.detach()
    assert "encode_prompt" not in vars(pipe)
    assert np.array_equal(draw(pipe, "a cat", **inputs), english)


def test_a_copy_of_an_attached_pipe_reads_by_itself(setup: Setup) -> None:
    """In its own type and on its own device, whatever becomes of the pipe that it was made from."""
    pipe, inputs = setup.pipe(), INPUTS["text"]
    english = draw(pipe, "a cat", **inputs)
    setup.pea.attach(pipe)
    expected = draw(pipe, "一只猫", **inputs)
    other = deepcopy(pipe)
    pipe.to(torch.float64)
    asked = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    assert other.encode_prompt("一只猫", **asked)[0].dtype == torch.float32
    rounding = {"rtol": 0, "atol": 1e-5}  # copied tensors lie elsewhere, and a CPU adds up in another order
    np.testing.assert_allclose(draw(other, "一只猫", **inputs), expected, **rounding)
    pipe.to(torch.float32)
    setup.pea.detach(other)
    np.testing.assert_allclose(draw(other, "a cat", **inputs), english, **rounding)
    assert np.abs(english - expected).max() > 1e-3
    setup.pea.detach()


def test_a_copy_of_an_adapter_takes_no_pipe_along(setup: Setup) -> None:
    pipe = setup.pipe()
    setup.pea.attach(pipe)
    try:
        for other in (deepcopy(setup.pea), pickle.loads(pickle.dumps(setup.pea))):
            assert not other._pipes and other.adapter is not setup.pea.adapter
            given = other("一只猫")
            assert all(torch.equal(each, given[name]) for name, each in setup.pea("一只猫").items())
            other.detach()
        assert "encode_prompt" in vars(pipe)
    finally:
        setup.pea.detach()


def test_embeddings_pass_an_attached_pipe(setup: Setup) -> None:
    pipe, inputs = setup.pipe(), INPUTS["text"]
    explicit = draw(pipe, **setup.pea("一只猫"), **inputs)
    setup.pea.attach(pipe)
    assert np.array_equal(draw(pipe, **setup.pea("一只猫"), **inputs), explicit)
    setup.pea.detach(pipe)


def test_embeddings_are_drawn_against_embeddings(setup: Setup) -> None:
    """The English encoder would read a native negative prompt, or the empty one, and nobody would notice."""
    pipe, inputs = setup.pipe(), INPUTS["text"]
    given = setup.pea("一只猫")
    alone = {name: tensor for name, tensor in given.items() if not name.startswith("negative_")}
    setup.pea.attach(pipe)
    try:
        unguided = draw(pipe, "一只猫", guidance_scale=1.0, **inputs)
        assert np.array_equal(draw(pipe, **alone, guidance_scale=1.0, **inputs), unguided)
        for words in ({}, {"negative_prompt": "小"}):
            with pytest.raises(
                CheckpointError, match="prompt_embeds without negative_prompt_embeds, in a pipe"
            ) as caught:
                draw(pipe, **alone, **words, **inputs)
            assert "\n" not in str(caught.value)
    finally:
        setup.pea.detach(pipe)
    assert draw(pipe, **alone, **inputs).shape == (1, 16, 16, 3), "as ever in a pipe that reads English"


def test_english_encoders_are_not_needed_and_their_type_does_not_count(setup: Setup) -> None:
    """transformers loads a file of half precision in that; diffusers loads the UNet beside it in float32."""
    pipe, inputs = setup.pipe(), INPUTS["text"]
    expected = same(setup, pipe, "一只猫", **inputs)
    names = [name for name in pipe.components if name.startswith("text_encoder")]
    former = {name: getattr(pipe, name) for name in names}
    setup.pea.attach(pipe)
    try:
        for name in names:
            former[name].to(torch.float16)
        assert np.array_equal(draw(pipe, "一只猫", **inputs), expected)
        for name in names:
            setattr(pipe, name, None)
        assert np.array_equal(draw(pipe, "一只猫", **inputs), expected)
    finally:
        for name in names:
            setattr(pipe, name, former[name].to(torch.float32))
        setup.pea.detach(pipe)


def test_the_zero_negative_of_sdxl(sdxl: Setup) -> None:
    pipe, inputs = sdxl.pipe(), INPUTS["text"]
    zeros = sdxl.pea("一只猫", zero_negative=True)
    assert not zeros["negative_prompt_embeds"].any() and not zeros["negative_pooled_prompt_embeds"].any()
    assert sdxl.pea("一只猫", "小", zero_negative=True)["negative_prompt_embeds"].any()
    explicit = draw(pipe, **zeros, **inputs)
    sdxl.pea.attach(pipe, zero_negative=True)
    attached = draw(pipe, "一只猫", **inputs)
    unguided = [
        draw(pipe, *words, **given, guidance_scale=1.0, **inputs) for words, given in ((["一只猫"], {}), ([], zeros))
    ]
    assert np.array_equal(*unguided)
    sdxl.pea.detach(pipe)
    assert np.array_equal(explicit, attached) and not np.array_equal(
        explicit, draw(pipe, **sdxl.pea("一只猫"), **inputs)
    )


def test_what_has_no_meaning_is_said(sdxl: Setup) -> None:
    pipe, inputs = sdxl.pipe(), INPUTS["text"]
    sdxl.pea.attach(pipe)
    try:
        with pytest.raises(CheckpointError, match="prompt_2 has no meaning"):
            draw(pipe, "一只猫", prompt_2="红球", **inputs)
        with pytest.raises(CheckpointError, match="negative_prompt_2 has no meaning"):
            draw(pipe, "一只猫", negative_prompt_2="红球", **inputs)
        assert np.array_equal(draw(pipe, "一只猫", prompt_2="", **inputs), draw(pipe, "一只猫", **inputs))
        with pytest.warns(UserWarning, match="clip_skip has no effect"):
            draw(pipe, "一只猫", clip_skip=1, **inputs)
    finally:
        sdxl.pea.detach()


def test_a_lora_file_of_others(setup: Setup, tmp_path: Path) -> None:
    pipe = setup.pipe()
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_q", "to_v", "to_out.0"], init_lora_weights=False))
    try:
        type(pipe).save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(pipe.unet))
    finally:
        pipe.unet.delete_adapters("default")
    plain = same(setup, pipe, "一只猫", **INPUTS["text"])
    pipe.load_lora_weights(tmp_path)
    try:
        assert not np.array_equal(plain, same(setup, pipe, "一只猫", **INPUTS["text"]))
    finally:
        pipe.unload_lora_weights()
    assert np.array_equal(plain, same(setup, pipe, "一只猫", **INPUTS["text"]))


def test_a_pipe_that_predicts_something_else_is_refused(setup: Setup) -> None:
    pipe, scheduler = setup.pipe(), setup.pipe().scheduler
    pipe.scheduler = type(scheduler).from_config(scheduler.config, prediction_type="v_prediction")
    try:
        with pytest.raises(CheckpointError, match="another prediction type; expected epsilon"):
            setup.pea.attach(pipe)
    finally:
        pipe.scheduler = scheduler


def test_other_pipelines_are_refused(sdxl: Setup, tmp_path: Path) -> None:
    other = Setup(tmp_path, "sd15")
    with pytest.raises(CheckpointError, match="another shape") as caught:
        sdxl.pea.attach(other.pipe())
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=r"SD1\.5 has no zero negative"):
        other.pea.attach(other.pipe(), zero_negative=True)
    with pytest.raises(CheckpointError, match=r"SD1\.5 has no zero negative"):
        other.pea("一只猫", zero_negative=True)
    unet = UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=r"not a pipeline.*got DDPMPipeline.*prompt_embeds"):
        sdxl.pea.attach(DDPMPipeline(unet, other.text.scheduler))


def test_the_models_follow_the_pipe_and_go_back_where_it_is_offloaded(
    sdxl: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a second device, what is asked for is looked at."""
    pipe, moves = sdxl.pipe(), []
    move = PEAPrompt.to

    def note(self: PEAPrompt, device: Any = None, dtype: Any = None) -> PEAPrompt:
        moves.append(str(device))
        return move(self, None if device is None else "cpu", dtype)

    monkeypatch.setattr(PEAPrompt, "to", note)
    monkeypatch.setattr(DiffusionPipeline, "_execution_device", torch.device("cpu", 0))
    sdxl.pea.attach(pipe)
    inputs = INPUTS["text"]
    draw(pipe, "一只猫", **inputs)
    assert moves == ["cpu:0", "None"]
    pipe.unet._hf_hook = object()
    try:
        draw(pipe, "一只猫", **inputs)
        assert moves[2:] == ["cpu:0", "cpu"]
    finally:
        del pipe.unet._hf_hook
        sdxl.pea.detach(pipe)
    assert sdxl.pea.dtype == torch.float32


def test_with_the_hooks_of_a_pipe_that_is_offloaded(setup: Setup) -> None:
    """accelerate's own, from the CPU to the CPU where there is nothing else."""
    pipe = setup.pipe()
    expected = same(setup, pipe, "一只猫", **INPUTS["text"])
    pipe.enable_model_cpu_offload(device="cpu")
    try:
        assert np.array_equal(same(setup, pipe, "一只猫", **INPUTS["text"]), expected)
    finally:
        pipe.remove_all_hooks()


def test_by_groups_of_layers(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where diffusers brings a pipe's layers to the device, the models go back between prompts, too."""
    pipe, moves = deepcopy(setup.pipe()), []
    expected = same(setup, pipe, "一只猫", **INPUTS["text"])
    move = PEAPrompt.to

    def note(self: PEAPrompt, device: Any = None, dtype: Any = None) -> PEAPrompt:
        moves.append(device)
        return move(self, device, dtype)

    monkeypatch.setattr(PEAPrompt, "to", note)
    pipe.unet.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")
    assert np.array_equal(same(setup, pipe, "一只猫", **INPUTS["text"]), expected)
    assert moves and None not in moves


def test_a_pipe_that_is_gone_is_let_go(sdxl: Setup) -> None:
    sdxl.pea.attach(sdxl.pipe())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sdxl.pea.detach()


def test_a_pipe_with_another_unet_of_that_shape_is_named_and_attached(setup: Setup, tmp_path: Path) -> None:
    """A fine-tune is an ordinary thing to draw with; an adapter that does not know its UNet's numbers says nothing."""
    other = KINDS[setup.shape]["text"].from_pretrained(make_checkpoint(tmp_path / "other", setup.shape, seed=7))
    config, pipe = setup.pea.adapter.config, setup.pipe()
    former = dict(config.base_model)
    try:
        setup.pea.attach(other)
        known = {**former, "values": unet_values(setup.folder / "teacher/unet")}
        setup.pea.adapter.register_to_config(base_model=known)
        setup.pea.attach(pipe)
        with pytest.warns(UserWarning, match=r"^StableDiffusion.*: its UNet is none of teacher") as caught:
            setup.pea.attach(other)
        assert [each.filename for each in caught] == [__file__]
        draw(other, "一只猫", **INPUTS["text"])
    finally:
        setup.pea.adapter.register_to_config(base_model=former)
        setup.pea.detach()
