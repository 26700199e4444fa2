"""A grid in one call: every variant drawn from the same noise, scored, compared; nothing is done twice."""

from __future__ import annotations

import io
import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pea.config import Config, GridConfig, SamplerConfig, ScorersConfig, load_config
from pea.errors import CheckpointError, ConfigError, EvaluationError, PeaError
from pea.evaluation.drawing import Drawer
from pea.evaluation.scorers.scorer import Scorer
from pea.models.adapter import PEA
from pea.models.unet import unet_config
from stages import evaluate
from stages.command.console import Console
from stages.grid import measuring
from stages.grid.variants import pairs_of, variants_of
from tests.evaluation.scorers.published_files import make_clip
from tests.tiny_models import make_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
QUIET = Console(quiet=True)
VARIANTS = [
    f"{row}-{sampler}-{steps}" for row in ("teacher", "own", "other") for sampler in ("dpm", "lcm") for steps in (1, 2)
]


def _lora(path: Path, checkpoint: Path) -> Path:
    """Of one matrix of the UNet, large enough to be seen."""
    width = unet_config(checkpoint)["block_out_channels"][-1]
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    torch.manual_seed(1)
    save_file(
        {f"{name}.lora_A.weight": 5 * torch.randn(2, width), f"{name}.lora_B.weight": 5 * torch.randn(width, 2)}, path
    )
    return path


@pytest.fixture(scope="module")
def grid(evaluated_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("grid")
    make_clip(folder / "pick")
    shutil.copytree(evaluated_config.adapter_dir, folder / "other")
    adapter = PEA.load(folder / "other")
    for parameter in adapter.parameters():
        parameter.data += 0.3
    adapter.save_pretrained(folder / "other")
    lines = [json.loads(line) for line in evaluated_config.evaluate.prompts["culture"].read_text("utf-8").splitlines()]
    lines = [line | {"concept": "cat" if number < 2 else "dog"} for number, line in enumerate(lines)]
    (folder / "culture.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    samplers = {
        "dpm": SamplerConfig(scheduler="dpm"),
        "lcm": SamplerConfig(
            scheduler="lcm",
            guidance_scale=1.0,
            lora=_lora(folder / "lcm.safetensors", evaluated_config.teacher.checkpoint),
        ),
    }
    settings = {
        "judge": None,
        "scorers": ScorersConfig(pick_score=folder / "pick", english_clip=folder / "pick"),
        "prompts": {**evaluated_config.evaluate.prompts, "culture": folder / "culture.jsonl"},
        "rows": ("teacher", "adapter"),
        "batch_size": 8,
        "grid": GridConfig(
            adapters={"own": evaluated_config.adapter_dir, "other": folder / "other"},
            samplers=samplers,
            num_inference_steps=(1, 2),
        ),
    }
    changed = {"run_dir": folder / "run", "evaluate": evaluated_config.evaluate.model_copy(update=settings)}
    return evaluated_config.model_copy(update=changed)


@pytest.fixture(scope="module")
def result(grid: Config) -> tuple[dict[str, Any], str]:
    said = io.StringIO()
    return evaluate.run(grid, Console(file=said, width=200)), said.getvalue()


def _files(config: Config) -> Path:
    return config.run_dir / "evaluate" / "grid"


def test_every_image_and_scorer_has_a_row(grid: Config, result: tuple[dict[str, Any], str]) -> None:
    rows = pq.read_table(_files(grid) / "scores.parquet").to_pylist()
    assert len(rows) == len(VARIANTS) * (5 + 3) * 2
    assert list(dict.fromkeys(row["variant"] for row in rows)) == VARIANTS
    row = next(row for row in rows if row["variant"] == "own-lcm-2" and row["prompt_set"] == "culture")
    assert (row["scheduler"], row["num_inference_steps"], row["guidance_scale"]) == ("lcm", 2, 1.0)
    assert row["caption"] == "一只猫" and row["text"] == "a cat" and row["group"] == "cat" and row["language"] == "zh"
    digests = ("prompts", "checkpoint", "adapter", "lora", "scorer", "image")
    assert all(len(row[f"{name}_digest"]) == 64 for name in digests)
    assert len({(row["image_seed"]) for row in rows if row["prompt_id"] == "p1"}) == 1, "the same noise for all"
    with Image.open(_files(grid) / row["image"]) as image:
        assert image.size == (16, 16) and image.text["variant"] == "own-lcm-2"  # type: ignore[attr-defined]
    assert len({row["adapter_digest"] for row in rows}) == 3  # none, and two


def test_variants_differ_as_they_should(grid: Config, result: tuple[dict[str, Any], str]) -> None:
    drawn = {}
    for variant in VARIANTS:
        (path,) = (_files(grid) / variant / "general").glob("p0-*.png")
        drawn[variant] = np.asarray(Image.open(path).convert("RGB")).tobytes()
    assert len(set(drawn.values())) == len(VARIANTS)
    drawer = Drawer(grid.teacher.checkpoint, "cpu", num_inference_steps=2, guidance_scale=1.0, scheduler="lcm")
    rows = pq.read_table(_files(grid) / "scores.parquet").to_pylist()
    seed = next(row["image_seed"] for row in rows if row["prompt_id"] == "p0")
    own = next(row for row in evaluate.make_rows(_plain(grid), torch.device("cpu")) if row.name == "teacher")
    plain = drawer.draw(own.encode(["a cat"]), own.encode([""]), [seed])[0]
    assert plain.tobytes() != drawn["teacher-lcm-2"], "without its LoRA it is another image"
    drawer.load_lora("lcm", Path(str(grid.evaluate.grid.samplers["lcm"].lora)))  # type: ignore[union-attr]
    drawer.use_loras("lcm")
    with_lora = drawer.draw(own.encode(["a cat"]), own.encode([""]), [seed])[0]
    difference = np.abs(with_lora.astype(int) - np.frombuffer(drawn["teacher-lcm-2"], np.uint8).reshape(16, 16, 3))
    assert difference.max() <= 1


def _plain(config: Config) -> Config:
    return config.model_copy(
        update={"evaluate": config.evaluate.model_copy(update={"grid": None, "rows": ("teacher",)})}
    )


def test_tables_carry_intervals_settings_and_comparisons(grid: Config, result: tuple[dict[str, Any], str]) -> None:
    returned, said = result
    assert json.loads((_files(grid) / "table.json").read_text("utf-8")) == returned
    assert len(returned["scores"]) == len(VARIANTS) * 2 * 2
    entry = next(
        each for each in returned["scores"] if each["variant"] == "other-dpm-2" and each["prompt_set"] == "culture"
    )
    assert entry["mean"]["n"] == 2, "concepts, not prompts"
    assert entry["mean"]["low"] <= entry["mean"]["accuracy"] <= entry["mean"]["high"]
    settings = entry["settings"]
    assert {"prompts", "num_prompts", "seed", "num_inference_steps", "guidance_scale", "scheduler"} < set(settings)
    assert {"teacher", "adapter", "scorer", "scorer_weights"} < set(settings) and settings["num_images"] == 3
    assert {(each["first"], each["second"]) for each in returned["comparisons"]} == {
        (name, VARIANTS[0]) for name in VARIANTS[1:]
    }
    paired = returned["comparisons"][0]
    assert paired["wins"] + paired["ties"] + paired["losses"] == 5 and paired["difference"]["n"] == 5
    page = (_files(grid) / "table.md").read_text("utf-8")
    assert "| variant | scheduler | steps | guidance | english_clip | pick_score | n |" in page
    assert "| other-lcm-2 | lcm | 2 | 1 |" in page and f"sha256 {settings['prompts'][:16]}" in page
    assert "culture prompts, mean [95 % interval]" in said and "96 images drawn, 0 were there" in said


def test_the_page_needs_nothing_else(grid: Config, result: tuple[dict[str, Any], str]) -> None:
    html = (_files(grid) / "grid.html").read_text("utf-8")
    assert html.count("data:image/png;base64,") == len(VARIANTS) * 8 and len(html) < 10_000_000
    assert 'alt="own-dpm-1: 一只猫"' in html and 'lang="zh" dir="auto">一只猫<' in html
    assert "http://" not in html and "https://" not in html


def test_nothing_is_done_twice(
    grid: Config, result: tuple[dict[str, Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = next((_files(grid) / "own-dpm-2/general").glob("p3-*.png"))
    removed.unlink()
    drawn: list[int] = []
    draw = Drawer.draw
    monkeypatch.setattr(Drawer, "draw", lambda self, *given: drawn.append(len(given[2])) or draw(self, *given))
    monkeypatch.setattr(Scorer, "score", lambda *_: pytest.fail("scored again"))
    assert evaluate.run(grid, QUIET) == result[0]
    assert drawn == [1] and removed.is_file()


def test_a_further_number_of_steps_is_drawn_alone(
    grid: Config, result: tuple[dict[str, Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = grid.evaluate.grid
    assert settings is not None
    more = settings.model_copy(update={"num_inference_steps": (1, 3), "compare": (("own-dpm-3", "own-lcm-3"),)})
    run_dir = grid.run_dir.parent / "more"
    shutil.copytree(grid.run_dir, run_dir)
    said = io.StringIO()
    changed = {"run_dir": run_dir, "evaluate": grid.evaluate.model_copy(update={"grid": more})}
    found = evaluate.run(grid.model_copy(update=changed), Console(file=said, width=200))
    assert "48 images drawn, 48 were there" in said.getvalue()
    assert {(each["first"], each["second"]) for each in found["comparisons"]} == {("own-dpm-3", "own-lcm-3")}
    rows = pq.read_table(run_dir / "evaluate/grid/scores.parquet").to_pylist()
    assert {row["num_inference_steps"] for row in rows} == {1, 3}, "what is not of this grid is not in its file"


def _fault(grid: Config, name: str, tmp_path: Path) -> dict[str, Any]:
    """What is changed in the grid's settings, or in evaluate's."""
    own = grid.evaluate.grid.adapters["own"]  # type: ignore[union-attr]
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(b"\x00" * 40)
    spoilt = tmp_path / "nan.safetensors"
    save_file({"unet.a.lora_A.weight": torch.full((2, 2), float("nan"))}, spoilt)
    return {
        "scorer": {"scorers": ScorersConfig(hps_v2=tmp_path / "nowhere")},
        "adapter": {"adapters": {"gone": tmp_path / "nowhere"}},
        "name": {"adapters": {"teacher": own}},
        "lora": {"samplers": {"lcm": SamplerConfig(scheduler="lcm", lora=tmp_path / "no.safetensors")}},
        "cut": {"samplers": {"lcm": SamplerConfig(scheduler="lcm", lora=cut)}},
        "no numbers": {"samplers": {"lcm": SamplerConfig(scheduler="lcm", lora=spoilt)}},
        "steps": {"num_inference_steps": (2, 60)},
        "compare": {"compare": (("own-dpm-1", "own-dpm-7"),)},
        "checkpoint": {"checkpoints": {"small": make_checkpoint(tmp_path / "sd15", "sd15")}},
        "no checkpoint": {"checkpoints": {"gone": tmp_path / "nowhere"}},
        "clash": {"adapters": {"own": own, "own-dpm": own}, "samplers": _SAMPLERS},
        "captions": {"adapters": {"own": own}, "prompts": {"general": _english(tmp_path)}},
    }[name]


_SAMPLERS = {"dpm-dpm": SamplerConfig(scheduler="dpm"), "dpm": SamplerConfig(scheduler="dpm")}
FAULTS: dict[str, tuple[type[PeaError], str]] = {
    "scorer": (CheckpointError, r"nowhere: no such file or folder"),
    "adapter": (CheckpointError, r"nowhere"),
    "name": (ConfigError, r"evaluate.grid.adapters: a row of another kind has this name; got teacher"),
    "lora": (CheckpointError, r"no.safetensors: no such LoRA file"),
    "cut": (CheckpointError, r"cut.safetensors: not a whole safetensors file"),
    "no numbers": (CheckpointError, r"nan.safetensors: weights that are no finite numbers"),
    "steps": (ConfigError, r"the scheduler lcm cannot take these steps; got 60"),
    "compare": (ConfigError, r"evaluate.grid.compare: no such variant; .*own-lcm-2.* got own-dpm-7"),
    "checkpoint": (CheckpointError, r"the adapter was trained for a diffusion model of another shape"),
    "no checkpoint": (CheckpointError, r"nowhere"),
    "clash": (ConfigError, r"two variants have one name; got own-dpm-dpm-1"),
    "captions": (EvaluationError, r"no prompt has a caption that own reads; got captions en"),
}


def _english(folder: Path) -> Path:
    (folder / "english.jsonl").write_text('{"id": "p", "captions": {"en": "a cat"}}\n')
    return folder / "english.jsonl"


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_known_before_anything_is_drawn(
    grid: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(Drawer, "__init__", lambda *_, **__: pytest.fail("something was spent"))
    kind, message = FAULTS[name]
    changes = _fault(grid, name, tmp_path)
    assert grid.evaluate.grid is not None
    own = {key: value for key, value in changes.items() if key in GridConfig.model_fields}
    others = {key: value for key, value in changes.items() if key not in own}
    evaluation = grid.evaluate.model_copy(update={"grid": grid.evaluate.grid.model_copy(update=own), **others})
    config = grid.model_copy(update={"run_dir": tmp_path / "run", "evaluate": evaluation})
    with pytest.raises(kind, match=message) as caught:
        evaluate.run(config, QUIET)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_the_papers_comparison_of_few_steps() -> None:
    config = load_config([ROOT / "configs/sdxl.yaml", ROOT / "configs/paper/few_steps.yaml"])
    variants = variants_of(config)
    kinds = {(variant.row, variant.scheduler, variant.num_inference_steps) for variant in variants}
    assert kinds == set(product(("teacher", "adapter"), ("dpm", "lcm"), (2, 4, 8, 30))) and len(variants) == 16
    assert {variant.guidance_scale for variant in variants if variant.lora} == {1.0}
    assert ("adapter-lcm-4", "adapter-dpm-30") in pairs_of(config, variants)


class _Judge:
    def read(self, images: np.ndarray) -> dict[str, list[str]]:
        return {"light": ["bright" if image.mean() > 127 else "dark" for image in images]}


def test_a_judge_reads_and_what_a_row_leaves_out_is_said(
    grid: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "load_judge", lambda folder: _Judge())
    (tmp_path / "judge").mkdir()
    lines = [{"id": f"p{n}", "captions": {"en": "a cat", "zh": "一只猫"}} for n in range(3)]
    lines[0]["attributes"] = {"light": "bright"}
    del lines[2]["captions"]["zh"]  # type: ignore[attr-defined]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    assert grid.evaluate.grid is not None
    few = GridConfig(
        adapters={"own": grid.evaluate.grid.adapters["own"]}, checkpoints={"again": grid.teacher.checkpoint}
    )
    settings = {"grid": few, "judge": tmp_path / "judge", "scorers": ScorersConfig(), "num_inference_steps": 1}
    settings |= {"prompts": {"few": tmp_path / "few.jsonl"}, "rows": type(grid.evaluate).model_fields["rows"].default}
    said = io.StringIO()
    changed = {"run_dir": tmp_path / "run", "evaluate": grid.evaluate.model_copy(update=settings)}
    found = evaluate.run(grid.model_copy(update=changed), Console(file=said, width=200))
    assert {(each["variant"], each["mean"]["n"]) for each in found["scores"]} == {
        ("teacher-ddim-1", 1),
        ("own-ddim-1", 1),
    }
    assert all(each["mean"]["accuracy"] in (0.0, 1.0) and each["mean"]["low"] is None for each in found["scores"])
    assert "row own, prompts few: 1 of 3 have no caption that it reads, and are left out\n" in said.getvalue()
    assert "row translation, prompts few: 3 of 3 have no caption" in said.getvalue()


def test_a_name_that_is_no_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="should match pattern"):
        GridConfig(adapters={"../up": Path("x")})
