"""A grid over several checkpoints, and over adapters that change the UNet: each variant draws with its own weights."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pea.config import Config, GridConfig, SamplerConfig, ScorersConfig
from pea.errors import CheckpointError
from pea.evaluation.drawing import Drawer
from pea.file_names import LORA_FILE
from pea.models.english import EnglishEncoder
from pea.pipeline import PEAPrompt
from stages import evaluate, train_adapter
from stages.command.console import Console
from tests.evaluation.scorers.published_files import make_clip
from tests.stages.grid.test_grid import _lora
from tests.train_runs import variant as variant_of_training

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)
STEPS = 2


def _setup(config: Config, folder: Path, grid: GridConfig) -> Config:
    if not (folder / "pick").exists():
        make_clip(folder / "pick")
    settings = {"judge": None, "rows": ("teacher", "adapter"), "batch_size": 8, "max_prompts": 2, "grid": grid}
    settings |= {"scorers": ScorersConfig(pick_score=folder / "pick")}
    evaluation = config.evaluate.model_copy(update=settings)
    return config.model_copy(update={"run_dir": folder / "run", "evaluate": evaluation})


def _samplers(folder: Path, checkpoint: Path) -> dict[str, SamplerConfig]:
    lora = _lora(folder / "lcm.safetensors", checkpoint)
    return {"dpm": SamplerConfig(scheduler="dpm"), "lcm": SamplerConfig(scheduler="lcm", lora=lora)}


def _image(config: Config, variant: str) -> NDArray[np.uint8]:
    (path,) = (config.run_dir / "evaluate" / "grid" / variant / "general").glob("p0-*.png")
    return np.asarray(Image.open(path).convert("RGB"))


def _rows(config: Config) -> list[dict[str, Any]]:
    return pq.read_table(config.run_dir / "evaluate/grid/scores.parquet").to_pylist()


def _variants(config: Config) -> list[str]:
    return list(dict.fromkeys(row["variant"] for row in _rows(config)))


def _drawn_alone(
    config: Config, checkpoint: Path, encoder: Any, text: str, scheduler: str, *loras: Path
) -> NDArray[np.uint8]:
    """The first prompt's image, from a pipeline in which nothing else was ever loaded."""
    guidance = config.evaluate.guidance_scale
    drawer = Drawer(checkpoint, "cpu", num_inference_steps=STEPS, guidance_scale=guidance, scheduler=scheduler)
    for number, lora in enumerate(loras):
        drawer.load_lora(f"lora_{number}", lora)
    drawer.use_loras(*(f"lora_{number}" for number in range(len(loras))))
    seed = next(row["image_seed"] for row in _rows(config) if row["prompt_id"] == "p0")
    return drawer.draw(encoder.encode([text]), encoder.encode([""]), [seed])[0]


def _close(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    return bool(np.abs(a.astype(int) - b).max() <= 1)


@pytest.fixture(scope="module")
def fine_tune(evaluated_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same checkpoint with another UNet."""
    folder = tmp_path_factory.mktemp("tuned") / "fine-tune"
    shutil.copytree(evaluated_config.teacher.checkpoint, folder)
    (file,) = (folder / "unet").glob("*.safetensors")
    save_file({name: 1.2 * value for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    return folder


def test_each_checkpoint_draws_every_row_with_its_own_unet(
    evaluated_config: Config, fine_tune: Path, tmp_path: Path
) -> None:
    base = evaluated_config.teacher.checkpoint
    grid = GridConfig(
        adapters={"own": evaluated_config.adapter_dir},
        checkpoints={"base": base, "tuned": fine_tune},
        samplers=_samplers(tmp_path, base),
        num_inference_steps=(STEPS,),
        compare=(("own-tuned-dpm-2", "own-base-dpm-2"),),
    )
    config, said = _setup(evaluated_config, tmp_path, grid), io.StringIO()
    with pytest.warns(UserWarning, match="other weights") as warned:
        found = evaluate.run(config, Console(file=said, width=200))
    said_of = [str(each.message) for each in warned if "weights" in str(each.message)]
    assert len(said_of) == 1 and said_of[0].startswith("fine-tune: "), "of the fine-tune alone, and once"
    names = [
        f"{row}-{kind}-{how}-2" for row in ("teacher", "own") for kind in ("base", "tuned") for how in grid.samplers
    ]
    assert _variants(config) == names and "32 images drawn" in said.getvalue()
    assert len({_image(config, name).tobytes() for name in names}) == len(names), "no two draw the same"
    pea = PEAPrompt.from_pretrained(evaluated_config.adapter_dir)
    for kind, checkpoint in (("base", base), ("tuned", fine_tune)):
        english = EnglishEncoder.from_checkpoint(checkpoint, device=torch.device("cpu"))
        assert _close(_image(config, f"own-{kind}-dpm-2"), _drawn_alone(config, checkpoint, pea, "一只猫", "dpm"))
        assert _close(
            _image(config, f"teacher-{kind}-dpm-2"), _drawn_alone(config, checkpoint, english, "a cat", "dpm")
        )
    digests = {row["variant"]: row["checkpoint_digest"] for row in _rows(config)}
    assert digests["own-base-dpm-2"] == digests["teacher-base-lcm-2"] != digests["own-tuned-dpm-2"]
    assert {(each["first"], each["second"]) for each in found["comparisons"]} == set(grid.compare)
    page = (config.run_dir / "evaluate/grid/table.md").read_text("utf-8")
    assert f"\n* checkpoint base: sha256 {digests['own-base-dpm-2'][:16]}\n" in page
    assert f"\n* checkpoint tuned: sha256 {digests['own-tuned-dpm-2'][:16]}\n" in page


def _larger(lora: Path) -> None:
    """So that what a few steps have changed is seen."""
    with safe_open(lora, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file({name: 300 * value if "lora_B" in name else value for name, value in tensors.items()}, lora, metadata)


@pytest.fixture(scope="module")
def changed(evaluated_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was trained together with a LoRA of the UNet."""
    folder = tmp_path_factory.mktemp("changed")
    trained = variant_of_training(evaluated_config, folder, method="lora", lora_rank=2)
    train_adapter.run(trained, QUIET)
    _larger(trained.adapter_dir / LORA_FILE)
    return trained.adapter_dir


def test_an_adapters_lora_is_in_its_own_images_alone(evaluated_config: Config, changed: Path, tmp_path: Path) -> None:
    base = evaluated_config.teacher.checkpoint
    grid = GridConfig(
        adapters={"changed.1": changed, "plain": evaluated_config.adapter_dir},
        samplers=_samplers(tmp_path, base),
        num_inference_steps=(STEPS,),
    )
    config = _setup(evaluated_config, tmp_path, grid)
    evaluate.run(config, QUIET)
    pea = {
        "changed.1": PEAPrompt.from_pretrained(changed),
        "plain": PEAPrompt.from_pretrained(evaluated_config.adapter_dir),
    }
    own, lcm = changed / LORA_FILE, Path(str(grid.samplers["lcm"].lora))
    expected = {
        ("changed.1", "dpm"): [own],
        ("changed.1", "lcm"): [own, lcm],
        ("plain", "dpm"): [],
        ("plain", "lcm"): [lcm],
    }
    for (row, how), loras in expected.items():
        alone = _drawn_alone(config, base, pea[row], "一只猫", how, *loras)
        assert _close(_image(config, f"{row}-{how}-2"), alone), (row, how)
    without = _drawn_alone(config, base, pea["changed.1"], "一只猫", "dpm")
    assert not _close(without, _image(config, "changed.1-dpm-2")), "without its LoRA it is another image"
    english = EnglishEncoder.from_checkpoint(base, device=torch.device("cpu"))
    assert _close(_image(config, "teacher-dpm-2"), _drawn_alone(config, base, english, "a cat", "dpm"))


def test_another_lora_of_an_adapter_is_drawn_anew(evaluated_config: Config, changed: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(changed, adapter)
    config = _setup(evaluated_config, tmp_path, GridConfig(adapters={"changed": adapter}, num_inference_steps=(STEPS,)))
    evaluate.run(config, QUIET)
    former = _image(config, "changed-ddim-2").copy()
    shutil.rmtree(config.run_dir / "evaluate/grid/changed-ddim-2/general")
    _larger(adapter / LORA_FILE)
    said = io.StringIO()
    evaluate.run(config, Console(file=said, width=200))
    assert "4 images drawn, 4 were there" in said.getvalue(), "of both prompt sets; the teacher's are there"
    assert not _close(former, _image(config, "changed-ddim-2"))


def _of_nothing(lora: Path) -> None:
    name = "unet.somewhere.to_q"
    save_file({f"{name}.lora_A.weight": torch.ones(2, 8), f"{name}.lora_B.weight": torch.ones(8, 2)}, lora)


def _of_a_text_encoder(lora: Path) -> None:
    name = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    save_file({f"{name}.lora_A.weight": torch.ones(2, 8), f"{name}.lora_B.weight": torch.ones(8, 2)}, lora)


def _of_other_shapes(lora: Path) -> None:
    save_file({name: torch.cat([value, value], -1) for name, value in load_file(lora).items()}, lora)


def _cut(lora: Path) -> None:
    lora.write_bytes(lora.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [_of_nothing, _of_a_text_encoder, _of_other_shapes, _cut])
def test_a_lora_that_changes_nothing_of_the_unet_is_refused(
    evaluated_config: Config, changed: Path, tmp_path: Path, damage: Any
) -> None:
    shutil.copytree(changed, tmp_path / "adapter")
    damage(tmp_path / "adapter" / LORA_FILE)
    grid = GridConfig(adapters={"changed": tmp_path / "adapter"}, num_inference_steps=(STEPS,))
    config = _setup(evaluated_config, tmp_path, grid)
    with pytest.raises(CheckpointError, match=LORA_FILE) as caught:
        evaluate.run(config, QUIET)
    assert "\n" not in str(caught.value) and not (config.run_dir / "evaluate").exists()
