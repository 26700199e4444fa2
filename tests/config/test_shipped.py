"""Every file below configs/: each has a purpose, and each fits what it is for."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from pea.config import load_config
from pea.config.yaml_text import names_in, read_yaml
from pea.models.unet import unet_config
from pea.models.unet_shapes import query_shapes
from stages.cli import main, parse
from stages.search_plan import configurations, draw_candidates, read_search
from stages.sweep_plan import Plan, plan
from stages.sweep_study import read_study

ROOT = Path(__file__).parents[2]
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*") if path.is_file())
FILES = [path for path in FILES if path.parent.name != "cluster"]  # not settings; tests/test_cluster_files.py has them
STUDIES = [path for path in FILES if path.parent.name == "studies"]
SEARCHES = [path for path in FILES if path.parent.name == "searches"]
PAPER = {
    Path("configs/paper/sdxl.yaml"): Path("configs/sdxl.yaml"),
    Path("configs/paper/sd15.yaml"): Path("configs/sd15.yaml"),
}
DEMO = Path("configs/demo.yaml")


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@cache
def _planned(path: Path) -> Plan:
    return plan(read_study(path))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_resolves(path: Path) -> None:
    """By itself, a study; laid over the demo, a method or a part of the small world's setups."""
    if path in STUDIES:
        assert len(_planned(path).runs) > 1
    elif path in SEARCHES:
        search = read_search(path)
        candidates = draw_candidates(search.space, search.candidates, search.seed)
        _, found = configurations(search, candidates)
        assert found and len(candidates) == search.candidates
    elif path.parent.name == "paper":
        below = [path] if path in PAPER else [Path("configs/paper/sdxl.yaml"), path]
        assert load_config([Path("configs/sdxl.yaml"), *below]).train.init == "torch"
    elif path.parent.name == "methods" or path.name.startswith("demo_"):
        assert load_config([DEMO, path]).run_dir.parts[0] == "runs"
    else:
        assert path.parent == Path("configs") and path.suffix == ".yaml"
        assert load_config(path).run_dir.parts[0] == "runs"


def test_there_are_few_folders() -> None:
    assert {path.parent.name for path in FILES} == {"configs", "methods", "paper", "searches", "studies"}
    assert len(STUDIES) >= 8


@pytest.mark.parametrize(("path", "family"), PAPER.items(), ids=str)
def test_the_originals_settings_are_said_and_not_left_to_defaults(path: Path, family: Path) -> None:
    """Source: train_sdxl_zh.py, train_sd_zh.py, their .sh files, utils/model_utils.py and custom_dataset_sdxl.py."""
    config, said = load_config([family, path]), set(names_in(read_yaml(path)))
    train, cache = config.train, config.cache
    per_step = train.batch_size * train.gradient_accumulation_steps
    assert train.steps and train.steps * per_step == pytest.approx(22.4e6, rel=1e-4)
    assert (train.init, train.feature_scale, train.phases, train.method) == ("torch", "raw", (), "adapter")
    assert train.diffusion_error == "prediction"
    assert (train.noise_pred_weight, train.feature_weight, train.diffusion_weight) == (1.0, 0.1, 1.0)
    assert (train.learning_rate, train.warmup_steps, train.weight_decay, train.max_grad_norm) == (1e-5, 100, 0.0, None)
    assert (train.adam_beta2, train.precision, config.teacher.dtype) == (0.999, "fp16", "float16")
    assert (config.teacher.vae_dtype, config.student.max_tokens, cache.caption_drop_rate) == ("float32", 52, 0.1)
    assert {
        f"train.{name}"
        for name in ("init", "feature_scale", "diffusion_error", "phases", "max_grad_norm", "weight_decay")
    } <= said
    if path.stem == "sdxl":
        assert (cache.noise_offset, cache.crop, cache.caption_drop) == (0.5, "random", "hidden_states")
        assert len(cache.buckets) == 9 and all(abs(h * w - 640**2) < 0.1 * 640**2 for h, w in cache.buckets)
        assert config.student.adapter.hidden_size == 1024
    else:
        assert (cache.noise_offset, cache.crop, config.student.adapter.hidden_size) == (0.0, "centre", 2048)


@pytest.mark.parametrize("kind", ["lora", "kv"])
def test_lora_and_kv_as_the_paper_compares_them_have_no_teacher(kind: str) -> None:
    train = load_config(["configs/sdxl.yaml", "configs/paper/sdxl.yaml", f"configs/paper/{kind}.yaml"]).train
    assert (
        train.method == kind and train.diffusion_rows == "all" and train.noise_pred_weight == train.feature_weight == 0
    )


def _commands(path: Path) -> list[list[str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [shlex.split(line.removeprefix("#     ")) for line in lines if line.startswith("#     ")]


@pytest.mark.parametrize("path", [path for path in FILES if _commands(ROOT / path)], ids=str)
def test_the_commands_in_its_first_lines_can_be_run(path: Path, tmp_path: Path) -> None:
    for program, *words in _commands(path):
        moved = [f"run_dir={tmp_path}"] if words[0] == "run" else []  # whose dry run remembers digests
        assert program == "pea" and main([*words, "--dry-run", *moved]) == 0


@pytest.mark.parametrize("path", STUDIES, ids=str)
def test_a_study_says_how_its_table_was_made_and_where_it_is(path: Path) -> None:
    assert any(words[:3] == ["pea", "sweep", str(path)] for words in _commands(path))
    head = path.read_text(encoding="utf-8").partition("\nconfig:")[0]
    [(page, heading)] = re.findall(r'^# Results: (docs/[\w/]+\.md)(?:, "([^"]+)")?', head, re.MULTILINE)
    text = Path(page).read_text(encoding="utf-8")
    assert f"\npea sweep {path}" in text
    assert not heading or re.search(rf"^#+ {re.escape(heading)}$", text, re.MULTILINE)


@pytest.mark.parametrize("path", STUDIES, ids=str)
def test_only_studies_of_what_a_cache_holds_fill_caches(path: Path) -> None:
    own = {run.method for run in _planned(path).runs if run.own_cache}
    kept = {run.method for run in _planned(path).runs} - own
    if path.stem.startswith("sketches"):
        assert not kept
    elif path.stem.startswith("methods") or path.stem in ("phases", "unet_steps", "languages", "recipe"):
        assert not own
    else:
        some = {
            "options": {"drop_hidden_states", "noise_offset"},
            "descriptions": {"perfect", "wrong"},
            "texts_alone": {"generated", "trajectory"},
            "things": {"ja", "ko", "weak_ja", "quarter"},
            "transfer": {"sd15", "quarter"},
        }
        assert some.get(path.stem, {"queries_4", "layers_3"}) <= own
        assert kept


@pytest.mark.parametrize("path", STUDIES, ids=str)
def test_phases_and_layers_of_every_published_run_are_those_of_the_teacher(path: Path) -> None:
    for _, *words in (words for words in _commands(path) if words[1] == "sweep"):
        given = parse(words)
        only = given.only.split(",") if given.only else ()
        for run in plan(read_study(given.methods), given.config or (), given.overrides, seeds=[0], only=only).runs:
            kinds = [phase.kind for phase in run.config.train.all_phases]
            assert kinds == sorted(kinds, key=["text", "attention", "unet"].index)
            assert run.config.cache.attention is not None or "attention" not in kinds
            assert set(run.config.train.attention_layer_weights) <= _layers(run.config.teacher.checkpoint)


@cache
def _layers(checkpoint: Path) -> set[str]:
    return set(query_shapes(unet_config(checkpoint), (8, 8)))


def test_the_demos_recipe_is_the_one_of_the_studies() -> None:
    [run, *_] = (run for run in _planned(Path("configs/studies/recipe.yaml")).runs if run.method == "demo")
    found, expected = run.config.train, load_config(DEMO).train
    for name in ("init", "phases", "learning_rate", "ema_decay", "diffusion_weight"):
        assert getattr(found, name) == getattr(expected, name), name
