"""What is trained beside the adapter: LoRA and K/V matrices of the UNet, saved as diffusers loads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pea.config import Config
from pea.errors import ConfigError
from pea.evaluation.drawing import Drawer, load_pipeline
from pea.file_names import LORA_FILE
from pea.models import trainable
from pea.models.adapter import PEA
from pea.models.conditioning import Conditioning
from pea.models.trainable import Trained, open_unet, save_unet
from pea.models.unet import Teacher
from stages import train_adapter
from stages.command.console import Console
from tests.tiny_models import Shape, make_checkpoint
from tests.train_runs import log_rows, same, variant, weights

QUIET = Console(quiet=True)


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape: Shape = request.param
    return make_checkpoint(tmp_path_factory.mktemp(shape) / "teacher", shape)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "kv"])
def test_a_saved_unet_gives_the_same_answers_in_a_pipeline(checkpoint: Path, tmp_path: Path, method: str) -> None:
    teacher = Teacher.from_checkpoint(checkpoint)
    before = _answer(teacher.unet)
    opened = open_unet(teacher.unet, method, 3, seed=0)  # type: ignore[arg-type]
    assert opened and all(("lora" in name) == (method == "lora") for name in opened)
    assert all(".attn2.to_" in name for name in opened) or method == "lora"
    with torch.no_grad():
        for number, parameter in enumerate(opened.values()):
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    changed = _answer(teacher.unet)
    assert not torch.allclose(before, changed, atol=1e-3)
    save_unet(teacher.unet, method, checkpoint, tmp_path)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == [LORA_FILE]
    pipe = load_pipeline(checkpoint)
    torch.testing.assert_close(_answer(pipe.unet), before)
    pipe.load_lora_weights(str(tmp_path))
    torch.testing.assert_close(_answer(pipe.unet), changed, rtol=1e-4, atol=1e-5)


def _answer(unet: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    text = torch.randn(1, 5, unet.config.cross_attention_dim, generator=generator)
    sdxl = unet.config.addition_embed_type == "text_time"
    added = {"text_embeds": torch.ones(1, 12), "time_ids": torch.ones(1, 6)} if sdxl else None
    with torch.no_grad():
        latents = torch.randn(1, 4, 8, 8, generator=generator)
        answer: torch.Tensor = unet(latents, 5, text, added_cond_kwargs=added).sample
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "kv"])
def test_training_changes_the_unet_and_follows_the_live_teacher(tiny_sdxl: Config, tmp_path: Path, method: str) -> None:
    runs = {}
    for targets in ("cached", "live"):
        config = variant(tiny_sdxl, tmp_path / targets, method=method, targets=targets, lora_rank=2)
        summary = train_adapter.run(config, QUIET)
        runs[targets] = [row["loss"] for row in log_rows(config)]
    assert runs["cached"] == pytest.approx(runs["live"], rel=1e-5), "the live teacher stays what it was"
    plain = variant(tiny_sdxl, tmp_path / "plain")
    assert summary["trained_parameters"] > train_adapter.run(plain, QUIET)["trained_parameters"]
    assert summary["method"] == method
    drawer = Drawer(config.teacher.checkpoint, "cpu", num_inference_steps=1, guidance_scale=1.0)
    drawer.load_changes(config.adapter_dir)
    text = Conditioning(torch.ones(1, 10, 32), torch.ones(1, 12))
    drawn = []
    for wanted in (True, False):
        drawer.use_changes(wanted=wanted)
        drawn.append(_answer(drawer.pipe.unet))
    assert not torch.allclose(*drawn, atol=1e-5)
    assert drawer.draw(text, text, [0]).shape == (1, 16, 16, 3)
    assert f'pipe.load_lora_weights("{config.adapter_dir}")' in (config.adapter_dir / "README.md").read_text()


@pytest.mark.slow
def test_a_run_with_lora_is_resumed_bit_for_bit(tiny_sdxl: Config, tmp_path: Path) -> None:
    settings = {"method": "lora", "lora_rank": 2, "ema_decay": 0.5}
    whole, broken = (variant(tiny_sdxl, tmp_path / name, **settings) for name in ("whole", "broken"))
    train_adapter.run(whole, QUIET)
    train_adapter.run(broken, QUIET)
    for path in (broken.training_dir / "states/step-00000004").iterdir():
        path.unlink()
    (broken.adapter_dir / LORA_FILE).unlink()
    train_adapter.run(broken, QUIET)
    assert same(weights(whole), weights(broken))
    assert same(load_file(whole.adapter_dir / LORA_FILE), load_file(broken.adapter_dir / LORA_FILE))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "kv"])
def test_in_bfloat16_the_trained_parts_stay_in_float32(tiny_sdxl: Config, tmp_path: Path, method: str) -> None:
    few = tiny_sdxl.evaluate.model_copy(update={"num_inference_steps": 1})
    drawn = {"sample_every_steps": 2, "sample_prompts": ("一只猫",), "validation_fraction": 0.3}
    config = variant(tiny_sdxl, tmp_path, method=method, lora_rank=2, precision="bf16", steps=2, batch_size=4, **drawn)
    summary = train_adapter.run(config.model_copy(update={"evaluate": few}), QUIET)
    assert summary["skipped_steps"] == 0 and summary["best_step"] == 2
    saved = load_file(config.adapter_dir / LORA_FILE)
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert any(tensor.any() for name, tensor in saved.items() if "lora_B" in name)
    assert (config.training_dir / "samples/step-00000002.png").exists()


@pytest.mark.slow
def test_a_later_run_of_the_adapter_alone_leaves_no_lora(tiny_sdxl: Config, tmp_path: Path) -> None:
    train_adapter.run(variant(tiny_sdxl, tmp_path, method="kv", steps=1), QUIET)
    assert (tmp_path / "run/adapter" / LORA_FILE).exists()
    train_adapter.run(variant(tiny_sdxl, tmp_path, steps=1), QUIET)
    assert not (tmp_path / "run/adapter" / LORA_FILE).exists()


def test_other_values_for_a_while() -> None:
    adapter = PEA(4, 4, None, hidden_size=4)
    trained = Trained(adapter, {})
    own, other = trained.copy(), {name: torch.zeros_like(value) for name, value in trained.copy().items()}
    with pytest.raises(ZeroDivisionError), trained.holding(other):
        assert same(trained.copy(), other)
        raise ZeroDivisionError
    assert same(trained.copy(), own) and trained.num_parameters == sum(value.numel() for value in own.values())


def test_without_peft_nothing_is_begun(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    unet = Teacher.from_checkpoint(checkpoint, "all").unet
    monkeypatch.setattr(trainable, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"train\.method.*got kv.*pip install peft"):
        open_unet(unet, "kv", 4, 0)
    assert open_unet(unet, "adapter", 4, 0) == {}
