"""Scoring: four rows from the same noise, kept images, metrics beside those of other stages; drawing for a user."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from PIL import Image

from pea.collect.overlap import map_in_threads
from pea.config import Config, EvaluateConfig, load_config, resolved_yaml
from pea.errors import CheckpointError, EvaluationError
from pea.evaluation.drawing import Drawer, load_pipeline, save_grid
from pea.evaluation.prompts import Prompt, read_prompts, texts_in
from pea.models.adapter import PEA
from pea.models.conditioning import Conditioning
from pea.models.english import EnglishEncoder
from pea.models.tensor_files import digest_of
from stages import evaluate, generate, scoring, train_adapter
from stages.cli import main
from stages.command.console import Console
from tests.tiny_models import make_checkpoint, make_native_encoder
from tests.tiny_setup import make_setup

QUIET = Console(quiet=True)


ROOT = Path(__file__).parents[2]
WORLD = ROOT / "data_tools/world/checkpoints"


class _Judge:
    """Calls an image bright or dark."""

    def read(self, images: np.ndarray) -> dict[str, list[str]]:
        assert images.dtype == np.uint8
        return {"light": ["bright" if image.mean() > 127 else "dark" for image in images]}


ROWS_OF_THREE = (("teacher", "en"), ("adapter", "zh"), ("adapter_ko", "ko"))


def english_never(texts: object) -> Conditioning:
    raise AssertionError(texts)


def _write_prompts(path: Path, count: int, *, translation: bool) -> None:
    lines = []
    for number in range(count):
        captions = {"en": "a cat", "zh": "一只猫"} | ({"translation_zh": "one animal cat"} if translation else {})
        lines.append(json.dumps({"id": f"p{number}", "captions": captions, "attributes": {"light": "bright"}}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("evaluate")
    base = make_setup(folder, "sdxl")
    train_adapter.run(base, QUIET)
    _write_prompts(folder / "general.jsonl", 5, translation=False)
    _write_prompts(folder / "culture.jsonl", 3, translation=True)
    settings = EvaluateConfig(
        prompts={"general": folder / "general.jsonl", "culture": folder / "culture.jsonl"},
        judge=folder / "judge",
        num_inference_steps=2,
        batch_size=4,
        device="cpu",
    )
    return base.model_copy(update={"evaluate": settings})


def test_metrics_and_images(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "load_judge", lambda folder: _Judge())
    (config.run_dir / "metrics.json").write_text('{"cache.records": 48, "teacher.general": 9}')
    returned = evaluate.run(config, QUIET)
    metrics = json.loads((config.run_dir / "metrics.json").read_text())
    names = {f"{row}.{name}" for row in ("no_adapter", "adapter") for name in ("general", "culture")}
    names |= {"teacher.general", "teacher.culture_described", "translation.culture"}
    assert set(metrics) == names | {"details", "drawings", "cache.records", "seconds.train", "seconds.evaluate"}
    assert metrics["cache.records"] == 48 and metrics["teacher.general"] == returned["teacher.general"] <= 1
    detail = metrics["details"]["adapter.culture"]
    assert detail["mean"]["n"] == 3 and detail["attributes"]["light"]["n"] == 3
    for row in evaluate.ROWS:
        folder = config.run_dir / "evaluate" / row / "culture"
        images = ["grid.png", *(f"p{n}.png" for n in range(3))]
        assert sorted(path.name for path in folder.iterdir()) == [*images, "scores.jsonl"]
        scored = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
        assert [each["id"] for each in scored] == ["p0", "p1", "p2"] and {e["accuracy"] for e in scored} <= {0.0, 1.0}
    assert _size(config.run_dir / "evaluate/adapter/general/grid.png") == (5 * 16, 16)


def _evaluated(config: Config, folder: Path, console: Console = QUIET, **changes: object) -> dict[str, Any]:
    """What `metrics.json` holds after an evaluation in a folder, with other settings than the fixture's."""
    if not (folder / "adapter").exists():
        shutil.copytree(config.adapter_dir, folder / "adapter")
    settings = config.evaluate.model_copy(update={"num_inference_steps": 1, **changes})
    evaluate.run(config.model_copy(update={"run_dir": folder, "evaluate": settings}), console)
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert set(content["details"]) == {name for name in content if name[:4] in ("adap", "no_a", "teac", "tran")}
    return content


def test_scores_of_other_settings_do_not_stand_side_by_side(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "load_judge", lambda folder: _Judge())
    everything = _evaluated(config, tmp_path)
    assert everything["details"]["teacher.general"]["settings"]["num_prompts"] == 5
    same = _evaluated(config, tmp_path, rows=("adapter",))
    assert set(same["details"]) == set(everything["details"]), "equal settings: the other rows still compare"
    said = io.StringIO()
    other = _evaluated(config, tmp_path, Console(file=said), rows=("adapter",), num_inference_steps=2)
    assert set(other["details"]) == {"adapter.general", "adapter.culture"}
    assert set(other["drawings"]) == {"adapter/general", "adapter/culture"}
    assert "the former score teacher.general is dropped (num_inference_steps 1 -> 2)" in said.getvalue()


def test_fewer_prompts_or_another_adapter_make_former_scores_incomparable(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "load_judge", lambda folder: _Judge())
    _evaluated(config, tmp_path)
    retrained_adapter = PEA.load(tmp_path / "adapter")
    next(retrained_adapter.parameters()).data += 1
    retrained_adapter.save_pretrained(tmp_path / "adapter")
    retrained = _evaluated(config, tmp_path, rows=("teacher",))
    rows = {name.split(".")[0] for name in retrained["details"]}
    assert rows == {"teacher", "translation", "no_adapter"}, "only the adapter's scores were of the former weights"
    fewer = _evaluated(config, tmp_path, rows=("adapter",), max_prompts=2)
    assert set(fewer["details"]) == {"adapter.general", "adapter.culture"}
    assert {detail["mean"]["n"] for detail in fewer["details"].values()} == {2}


def _rows_drawn(config: Config, folder: Path, rows: tuple[str, ...] | None, console: Console = QUIET) -> set[str]:
    """`row/prompt set` of each sheet that a short evaluation leaves; `rows`: None is the default."""
    (folder / "adapter").symlink_to(config.adapter_dir)
    settings = {"judge": None, "num_inference_steps": 1} | ({} if rows is None else {"rows": rows})
    changed = {"run_dir": folder, "evaluate": config.evaluate.model_copy(update=settings)}
    evaluate.run(config.model_copy(update=changed), console)
    return {path.parent.relative_to(folder / "evaluate").as_posix() for path in folder.rglob("grid.png")}


def test_prompts_without_a_translation_leave_that_row_out(config: Config, tmp_path: Path) -> None:
    said = io.StringIO()
    drawn = _rows_drawn(config, tmp_path, None, Console(file=said))
    assert "translation/culture" in drawn and "translation/general" not in drawn and "teacher/general" in drawn
    notice = "row translation, prompts general: left out, 5 of 5 prompts have no caption translation_zh\n"
    assert notice in said.getvalue() and said.getvalue().count("left out") == 1


def test_a_translation_that_is_asked_for_has_to_be_there(config: Config, tmp_path: Path) -> None:
    wanted = (
        r"general.jsonl: the row `translation` .* expected a caption translation_zh .* got none in 5 of 5, first p0"
    )
    with pytest.raises(EvaluationError, match=wanted) as caught:
        _rows_drawn(config, tmp_path, ("teacher", "translation"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evaluate").exists()


def test_prompts_without_a_caption_are_left_out_counted_and_said(config: Config) -> None:
    texts = ({"en": "a cat", "zh": "一只猫"}, {"en": "a dog", "zh": " "[:0]}, {"en": "x", "zh": "猫", "ko": "고양이"})
    prompts = [Prompt(f"p{number}", captions, {}) for number, captions in enumerate(texts)]
    rows = [evaluate.Row(name, language, english_never) for name, language in ROWS_OF_THREE]
    said = io.StringIO()
    drawn = evaluate.drawings_of(config, Console(file=said), rows, {"general": prompts})
    asked = {row.name: [prompt.id for prompt in found] for row, _, found in drawn}
    assert asked == {"teacher": ["p0", "p2"], "adapter": ["p0", "p2"], "adapter_ko": ["p2"]}
    assert "row adapter_ko, prompts general: 2 of 3 have no caption ko, and are left out\n" in said.getvalue()
    assert "row teacher, prompts general: 1 of 3 have no caption en and zh, and are left out\n" in said.getvalue()
    alone = {"general": prompts[1:2]}
    with pytest.raises(EvaluationError, match=r"general.jsonl: no caption named 'zh'; got prompt p1"):
        evaluate.drawings_of(config, QUIET, rows, alone)
    assert evaluate.drawings_of(config, QUIET, rows[2:], alone) == []


def test_a_saved_configuration_asks_for_the_rows_that_the_first_one_did(config: Config, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(resolved_yaml(config), encoding="utf-8")
    sets = {"general": read_prompts(config.evaluate.prompts["general"])}
    evaluate.check_translations(load_config(tmp_path / "c.yaml"), QUIET, sets)


def test_without_a_judge_there_are_images_only(config: Config, tmp_path: Path) -> None:
    (tmp_path / "adapter").symlink_to(config.adapter_dir)
    (tmp_path / "training").symlink_to(config.training_dir)
    settings = config.evaluate.model_copy(update={"judge": None, "max_prompts": 1, "num_inference_steps": 1})
    metrics = evaluate.run(config.model_copy(update={"run_dir": tmp_path, "evaluate": settings}), QUIET)
    assert set(metrics) == {"details", "seconds.train", "seconds.evaluate"} and metrics["details"] == {}
    assert (tmp_path / "evaluate/adapter/culture/p0.png").exists()


def test_a_clip_scores_where_no_judge_can(config: Config, tmp_path: Path) -> None:
    (tmp_path / "adapter").symlink_to(config.adapter_dir)
    changes = {"judge": None, "num_inference_steps": 1, "clip": WORLD / "chinese_clip", "rows": ("teacher", "adapter")}
    settings = config.evaluate.model_copy(update=changes)
    metrics = evaluate.run(config.model_copy(update={"run_dir": tmp_path, "evaluate": settings}), QUIET)
    names = {f"{name}.clip" for name in ("teacher.general", "adapter.general", "adapter.culture")}
    assert names | {"teacher.culture_described.clip"} == set(metrics["details"])
    assert all(-1 <= metrics[name] <= 1 for name in names)
    assert metrics["details"]["adapter.general.clip"]["mean"]["n"] == 5


def test_every_language_of_an_adapter_is_drawn(config: Config, tmp_path: Path) -> None:
    (tmp_path / "adapter").symlink_to(config.adapter_dir)
    both = {"id": "p0", "captions": {"zh": "一只猫", "ja": "猫"}}
    (tmp_path / "general.jsonl").write_text(json.dumps(both) + "\n", encoding="utf-8")
    prompts = {**config.evaluate.prompts, "general": tmp_path / "general.jsonl"}
    settings = {"judge": None, "num_inference_steps": 1, "rows": ("adapter",), "prompts": prompts}
    changed = {
        "run_dir": tmp_path,
        "evaluate": config.evaluate.model_copy(update=settings),
        "student": config.student.model_copy(update={"language": ("zh", "ja")}),
    }
    evaluate.run(config.model_copy(update=changed), QUIET)
    drawn = {path.parent.relative_to(tmp_path / "evaluate").as_posix() for path in tmp_path.rglob("p0.png")}
    assert drawn == {"adapter/general", "adapter/culture", "adapter_ja/general"}, "culture prompts have no Japanese"


def test_an_image_does_not_depend_on_its_batch(config: Config) -> None:
    english = EnglishEncoder.from_checkpoint(config.teacher.checkpoint)
    drawer = Drawer(config.teacher.checkpoint, "cpu", num_inference_steps=2, guidance_scale=3.0)
    together = drawer.draw(english.encode(["a cat", "a dog", "a cat"]), english.encode([""]), [1, 2, 1])
    alone = drawer.draw(english.encode(["a dog"]), english.encode([""]), [2])
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1
    assert np.array_equal(together[0], together[2]) and not np.array_equal(together[0], together[1])
    wide = drawer.draw(english.encode(["a dog"]), english.encode([""]), [2], size_px=(16, 24))
    assert wide.shape == (1, 16, 24, 3)


def test_the_pipeline_is_the_unmodified_one(config: Config) -> None:
    """What the drawer gives is what a user gets from diffusers with the same prompt and noise."""
    drawer = Drawer(config.teacher.checkpoint, "cpu", num_inference_steps=2, guidance_scale=3.0)
    english = EnglishEncoder.from_checkpoint(config.teacher.checkpoint)
    ours = drawer.draw(Conditioning(*english.encode(["a cat"])), english.encode([""]), [7])
    pipe = StableDiffusionXLPipeline.from_pretrained(config.teacher.checkpoint)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    options = {"height": 16, "width": 16, "num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "np"}
    theirs = pipe("a cat", negative_prompt="", latents=latents, **options).images
    assert np.abs(ours[0] / 255 - theirs[0]).max() < 0.01


@pytest.mark.parametrize("without_text", [True, False])
def test_a_checkpoint_of_fp16_weights_alone_is_drawn_from(config: Config, tmp_path: Path, without_text: bool) -> None:
    half = load_pipeline(config.teacher.checkpoint)
    for model in (half.unet, half.vae, half.text_encoder, half.text_encoder_2):
        model.half()
    half.save_pretrained(tmp_path, variant="fp16")
    assert not list(tmp_path.glob("*/*model.safetensors"))
    pipe = load_pipeline(tmp_path, without_text=without_text)
    models = [pipe.unet, pipe.vae] + ([] if without_text else [pipe.text_encoder, pipe.text_encoder_2])
    assert {model.dtype for model in models} == {torch.float32}
    plain = load_pipeline(config.teacher.checkpoint).unet.state_dict()
    assert all(torch.equal(each, plain[name].half().float()) for name, each in pipe.unet.state_dict().items())


def test_another_encoder_of_the_same_width_or_another_base_model_is_refused(config: Config, tmp_path: Path) -> None:
    """What training recorded is compared by content, before anything is drawn."""
    kept = json.loads((config.adapter_dir / "config.json").read_text())
    assert kept["encoder"]["name"] == "zh" and kept["encoder"]["max_tokens"] == 10 and kept["languages"] == ["zh"]
    assert kept["base_model"]["name"] == "teacher" and kept["prediction_type"] == "epsilon"
    assert kept["base_model"]["unet"] == digest_of(config.teacher.checkpoint / "unet")
    other = config.student.model_copy(update={"encoder": make_native_encoder(tmp_path / "other", seed=5)})
    teacher = config.teacher.model_copy(update={"checkpoint": make_checkpoint(tmp_path / "sd15", "sd15")})
    for changed, said in (
        ({"student": other}, "another text encoder; .*zh.*other"),
        ({"teacher": teacher}, "a diffusion model of another shape"),
    ):
        with pytest.raises(CheckpointError, match=f"the adapter was trained for {said}"):
            evaluate.make_rows(config.model_copy(update=changed), torch.device("cpu"))
        with pytest.raises(CheckpointError, match=f"the adapter was trained for {said}"):
            generate.run(config.model_copy(update=changed), QUIET, ["一只猫"], tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_all_that_training_leaves_is_as_readable_as_any_new_file(config: Config, tmp_path: Path) -> None:
    """Weights and saved states too: libraries write theirs for the owner alone."""
    (tmp_path / "new").touch()
    both = (config.adapter_dir, config.training_dir)
    files = [path for folder in both for path in folder.rglob("*") if path.is_file()]
    modes = {path: path.stat().st_mode & 0o777 for path in files}
    assert any(path.suffix == ".safetensors" and path.parent != config.adapter_dir for path in modes)
    assert {path.name for path, mode in modes.items() if mode != (tmp_path / "new").stat().st_mode & 0o777} == set()


def test_the_vae_decodes_one_image_at_a_time(config: Config) -> None:
    drawer = Drawer(config.teacher.checkpoint, "cpu", num_inference_steps=1, guidance_scale=3.0)
    sizes: list[int] = []
    drawer.pipe.vae.decoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    encode = EnglishEncoder.from_checkpoint(config.teacher.checkpoint).encode
    drawer.draw(encode(["a cat", "a dog", "a cat"]), encode([""]), [1, 2, 3])
    assert sizes == [1, 1, 1]


def test_the_setups_for_large_images_draw_few_at_a_time() -> None:
    sizes = [load_config(ROOT / f"configs/{name}.yaml").evaluate.batch_size for name in ("sd15", "sdxl")]
    assert sizes == [16, 4] and EvaluateConfig().batch_size > max(sizes)


@pytest.mark.parametrize(
    ("count", "height", "width", "expected"),
    [(17, 600, 512, (16 * 256, 2 * 300)), (2, 600, 512, (2 * 512, 600)), (16, 2, 4000, (16 * 256, 1))],
)
def test_a_sheet_is_of_reasonable_width(
    tmp_path: Path, count: int, height: int, width: int, expected: tuple[int, int]
) -> None:
    images = np.zeros((count, height, width, 3), np.uint8)
    images[0] = 200
    save_grid(tmp_path / "grid.png", images)
    assert _size(tmp_path / "grid.png") == expected
    with Image.open(tmp_path / "grid.png") as sheet:
        assert sheet.getpixel((0, 0)) == (200, 200, 200) and sheet.getpixel((expected[0] - 1, 0)) == (0, 0, 0)


def test_generate(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "setup.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    out = tmp_path / "out"
    argv = ["一只猫", "红球/上", "--config", str(path), "--out", str(out), "--num-images", "2"]
    assert generate.main([*argv, "--set", "evaluate.num_inference_steps=1"]) == 0
    assert sorted(p.name for p in out.iterdir()) == [
        "000-一只猫.png",
        "001-一只猫.png",
        "002-红球-上.png",
        "003-红球-上.png",
    ]
    assert _size(out / "000-一只猫.png") == (16, 16)


def test_generate_takes_settings_as_other_commands_do(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, over = tmp_path / "setup.yaml", tmp_path / "over.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    over.write_text("evaluate: {guidance_scale: 4}")
    drawn: list[tuple[Config, list[str]]] = []
    monkeypatch.setattr(generate, "run", lambda config, _, prompts, *__, **___: drawn.append((config, prompts)))
    files = ["--config", str(path), "--config", str(over)]
    words = ["a=b", "run_dir=x", "cat", "--out", "y", "evaluate.num_inference_steps=7", "--set", "evaluate.seed=3"]
    assert main(["generate", *files, *words]) == 0
    [(found, prompts)] = drawn
    assert prompts == ["a=b", "cat"], "a is no setting"
    assert found.run_dir == Path("x") and found.evaluate.num_inference_steps == 7 and found.evaluate.seed == 3
    assert found.evaluate.guidance_scale == 4 and found.teacher == config.teacher
    assert main(["generate", *files, "run_dir=x"]) == 2
    assert capsys.readouterr().err == (
        "pea: error: nothing to draw; expected a prompt beside the settings; got run_dir=x\n"
    )


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("evaluate.guidence_scale=4", "did you mean evaluate.guidance_scale?"),
        ("evaluate.guidance-scale=4", "did you mean evaluate.guidance_scale?"),
        ("eval.guidance_scale = 4", "eval"),
        ("guidance_scale=4", "guidance_scale"),
        ("rundir=x", "did you mean run_dir?"),
        ("seeds=4", "seeds"),
        ("evaluate.seed:4", "evaluate.seed:4"),
        ("evaluate.seed", "evaluate.seed"),
    ],
)
def test_a_misspelt_setting_is_no_prompt(
    config: Config, tmp_path: Path, word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "setup.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    assert generate.main(["一只猫", word, "--config", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_prompts_that_are_no_settings() -> None:
    words = ["a=b", "E=mc²", "一只猫：红球", "a cat. a dog = pets", " run_dir=x", "evaluate.prompts.general=x"]
    assert generate.split_words(words) == (
        ["a=b", "E=mc²", "一只猫：红球", "a cat. a dog = pets", "run_dir=x"],
        [words[-1]],
    )


@pytest.fixture(scope="module")
def alone(config: Config) -> list[str]:
    """Adapter and base model, without a configuration."""
    return ["--adapter", str(config.adapter_dir), "--base", str(config.teacher.checkpoint), "--steps", "1"]


def test_generate_without_a_configuration(config: Config, alone: list[str], tmp_path: Path) -> None:
    path, out = tmp_path / "setup.yaml", tmp_path / "out"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    more = ["--negative-prompt", "小", "--guidance", "3", "--seed", "4", "--num-images", "2", "--out", str(out)]
    assert generate.main(["一只猫", *alone, *more]) == 0
    with Image.open(out / "001-一只猫.png") as image:
        kept, pixels = dict(image.text), np.asarray(image)
    weights = json.loads((config.adapter_dir / "config.json").read_text())["weights"]
    assert kept == {
        "prompt": "一只猫",
        "negative_prompt": "小",
        "seed": "4",
        "image_of_prompt": "1",
        "steps": "1",
        "guidance": "3.0",
        "adapter": str(config.adapter_dir),
        "adapter_weights": weights,
        "base": str(config.teacher.checkpoint),
        "Software": "PEA-Cache",
    }
    same = ["--config", str(path), "--steps", "1", *more[:-1], str(tmp_path / "same")]
    assert generate.main(["一只猫", *same]) == 0
    with Image.open(tmp_path / "same/001-一只猫.png") as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_sizes_and_long_prompts(alone: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out"), "--guidance", "0"]
    long = "一只猫狗红球大小雪草"
    assert generate.main([long, *alone, *out, "--size", "24x16"]) == 0
    assert _size(tmp_path / f"out/000-{long}.png") == (24, 16)
    assert "lost of a prompt: '雪草' (--chunk reads it in pieces)" in capsys.readouterr().err
    with Image.open(tmp_path / f"out/000-{long}.png") as image:
        cut = np.asarray(image)
    assert generate.main([long, "猫", *alone, *out, "--size", "24x16", "--chunk"]) == 0
    assert capsys.readouterr().err == ""
    with Image.open(tmp_path / f"out/000-{long}.png") as image:
        assert not np.array_equal(np.asarray(image), cut)
    assert generate.main(["猫", *alone, *out[:1], str(tmp_path / "no"), "--size", "17"]) == 2
    assert "a size that cannot be drawn; expected multiples of 2; got 17x17" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    for wrong in ("0", "16x", "16x0", "big"):
        with pytest.raises(SystemExit):
            generate.main(["猫", *alone, "--size", wrong])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which adapter?; expected --config FILE, or --adapter FOLDER (and --base); got neither"),
        (["--adapter", "A", "--config", "B"], "which adapter?"),
        (["--config", "B", "--base", "C"], "the configuration says which; got --base or --encoder"),
        (["--adapter", "A", "evaluate.seed=3"], "a setting without --config; got evaluate.seed=3"),
        (["--adapter", "A", "--set", "evaluate.seed=3"], "a setting without --config; got evaluate.seed=3"),
        (["--adapter", "ADAPTER"], "does not say where its diffusion model is; got teacher. Give it with --base."),
        (["--adapter", "A/b/c"], "A/b/c: no adapter here"),
    ],
)
def test_what_to_draw_with_is_said_in_one_way(
    config: Config, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(config.adapter_dir) if word == "ADAPTER" else word for word in words]
    assert generate.main([*words[2:], "猫", *words[:2]] if "evaluate.seed=3" in words[2:3] else ["猫", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_each_problem_is_one_line(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match="no judge here"):
        scoring.load_judge(tmp_path)
    with pytest.raises(EvaluationError, match="nothing to evaluate"):
        evaluate.run(config.model_copy(update={"evaluate": EvaluateConfig()}), QUIET)
    path = tmp_path / "setup.yaml"
    path.write_text(resolved_yaml(config.model_copy(update={"run_dir": tmp_path / "new"})), encoding="utf-8")
    assert generate.main(["一只猫", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert "no adapter here" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no prompts"),
        ("{", "line 1: not a prompt"),
        ('{"id": 1}', "line 1: not a prompt"),
        ('{"id": "a", "captions": {}, "attributes": {}}\n' * 2, "the same id"),
    ],
)
def test_prompts_are_checked(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prompts.jsonl"
    with pytest.raises(EvaluationError, match="cannot read"):
        read_prompts(path)
    path.write_text(text)
    with pytest.raises(EvaluationError, match=message):
        read_prompts(path)


def test_a_missing_caption_names_the_prompt(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    _write_prompts(path, 2, translation=False)
    with pytest.raises(EvaluationError, match=r"no caption named 'ja'.*p0"):
        texts_in(read_prompts(path, limit=1), "ja", path)


def test_threads_that_draw_at_the_same_time_change_nothing(config: Config) -> None:
    checkpoint = config.teacher.checkpoint
    drawer = Drawer(checkpoint, "cpu", num_inference_steps=6, guidance_scale=3.0)
    encode = EnglishEncoder.from_checkpoint(checkpoint).encode
    batches = [(encode([text] * 2), [seed, seed + 1]) for seed, text in enumerate(["a cat", "a red dog", "two houses"])]
    empty = encode([""])
    alone = [drawer.draw(conditioning, empty, seeds) for conditioning, seeds in batches]
    together = list(map_in_threads(lambda batch: drawer.draw(batch[0], empty, batch[1]), batches, 3))
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1  # rounding
    assert len({images.tobytes() for images in alone}) == 3
