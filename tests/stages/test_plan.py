"""`pea plan`: the published sizes, what a real run then writes, and the advice."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from pea.cache import Cache
from pea.config import AttentionConfig, CacheConfig, Config, PhaseConfig, resolved_yaml
from pea.costs.caching import read_models, unet_flops
from pea.file_names import CACHE_SUMMARY
from stages.cli import main
from tests.collect.test_collector import with_cache
from tests.collect.test_drawn_texts import fill, of_texts
from tests.docs.pages import ROOT, blocks, name
from tests.tiny_setup import fill_cache, write_tar

Capture = pytest.CaptureFixture[str]


def plan(config: Config, folder: Path, capsys: Capture, *words: str) -> dict[str, Any]:
    """The numbers of `pea plan --json`."""
    path = folder / "plan.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    capsys.readouterr()
    assert main(["plan", "--config", str(path), "--json", *words]) == 0
    numbers: dict[str, Any] = json.loads(capsys.readouterr().out)
    return numbers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "size_px", "megabytes"),
    [("sd15", 512, 12.6), ("sdxl", 1024, 51.1)],
)
def test_feature_maps_of_the_real_models(
    fresh_run: Config, tmp_path: Path, capsys: Capture, preset: str, size_px: int, megabytes: float
) -> None:
    config = with_cache(fresh_run, buckets=((size_px, size_px),))
    numbers = plan(config, tmp_path, capsys, "--preset", preset, "--samples", "1000")
    assert round(numbers["exact_fp16_bytes_per_record"] / 1e6, 1) == megabytes
    assert numbers["memory"]["training"] > {"sd15": 1.7e9, "sdxl": 5.1e9}[preset]
    assert sum(block["fp16"] for block in numbers["blocks"].values()) == numbers["exact_fp16_bytes_per_record"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "sketch",
    [
        {"kind": "exact", "dtype": "float32"},
        {"kind": "exact", "dtype": "bfloat16"},
        {"kind": "quantized", "values": "int8"},
        {"kind": "positions", "fraction": 0.3, "values": "bfloat16"},
        {"kind": "count", "ratio": 4, "values": "int8"},
    ],
    ids=lambda sketch: "-".join(map(str, sketch.values())),
)
def test_a_run_writes_what_was_planned(
    fresh_run: Config, tmp_path: Path, capsys: Capture, sketch: dict[str, Any]
) -> None:
    write_tar(tmp_path / "some.tar", range(48), ("en", "zh"))
    parallel = fresh_run.corpora.parallel.model_copy(update={"tars": (str(tmp_path / "some.tar"),)})
    corpora = fresh_run.corpora.model_copy(update={"parallel": parallel, "culture": None})
    raw = fresh_run.model_copy(update={"corpora": corpora}).model_dump(mode="json")
    raw["cache"] |= {"buckets": [[16, 16]], "sketch": sketch}
    config = Config.model_validate_json(json.dumps(raw))
    numbers = plan(config, tmp_path, capsys)
    assert (numbers["num_samples"], numbers["num_records"]) == (48, 144)
    cache: Cache = fill_cache(config, "parallel", tmp_path)
    written = sum(part.record.num_bytes for shard in cache.shards for part in shard.parts)
    assert numbers["total_bytes"] == pytest.approx(written, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["generated", "trajectory"])
def test_texts_are_planned_with_their_drawing(fresh_run: Config, tmp_path: Path, capsys: Capture, form: Any) -> None:
    config = of_texts(fresh_run, tmp_path, form, count=48, buckets=((16, 16),))
    numbers = plan(config, tmp_path, capsys)
    assert (numbers["num_samples"], numbers["num_records"]) == (48, 144)
    written = sum(part.record.num_bytes for shard in fill(config).shards for part in shard.parts)
    assert numbers["total_bytes"] == pytest.approx(written, rel=0.05)
    unet = unet_flops(read_models(config.teacher.folder).unet, (4, 8, 8)) / 1e12
    assert numbers["teacher_tflop_per_record"] > unet * (1 + 4 * 2 / 3), "four guided steps for three draws"
    assert numbers["teacher_tflop_per_record"] < unet * (1.5 + 4 * 2 / 3)


@pytest.mark.slow
def test_a_number_that_is_guessed_is_called_so(fresh_run: Config, tmp_path: Path, capsys: Capture) -> None:
    write_tar(tmp_path / "some.tar", range(48), ("en", "zh"))
    (tmp_path / "some.tar.gz").write_bytes(gzip.compress((tmp_path / "some.tar").read_bytes()))
    path = tmp_path / "plan.yaml"
    path.write_text(resolved_yaml(fresh_run), encoding="utf-8")
    for tar, guessed in (("some.tar", False), ("some.tar.gz", True)):
        tars = f"corpora.parallel.tars=[{tmp_path / tar}]"
        assert main(["plan", "--config", str(path), tars]) == 0
        said = capsys.readouterr().out
        assert ("samples: guessed from the tars' sizes" in said) == guessed, tar
        assert "under 0.01" in said and "1 training costs " in said
        assert not re.search(r"\b0\.0+ ([kMGT]?B|TFLOP/s|minutes|records/s)", said), "small is no nothing"


def _with_queries(config: Config) -> CacheConfig:
    return config.cache.model_copy(update={"attention": AttentionConfig()})


@pytest.mark.slow
def test_it_says_when_the_cache_pays_and_what_would_make_it_pay(
    fresh_run: Config, tmp_path: Path, capsys: Capture
) -> None:
    once = plan(fresh_run, tmp_path, capsys, "--samples", "1000000")
    even = once["break_even_trainings"]
    assert even > 1 and once["saving"] < 0 and f"it pays from {even} trainings on" in once["verdict"]
    for trainings, pays in ((even - 1, False), (even, True)):
        counted = plan(fresh_run, tmp_path, capsys, "--samples", "1000000", "--languages", str(trainings))
        assert (counted["saving"] >= 0) is pays
        assert counted["total_gpu_hours"] == pytest.approx(
            counted["gpu_hours"] + trainings * counted["training_gpu_hours"]
        )
    often = plan(fresh_run, tmp_path, capsys, "--samples", "100", "--languages", "50", "--runs", "50")
    first = often["break_even_trainings"]
    assert often["saving"] > 0 and often["verdict"].startswith(f"the cache pays from training {first} on")
    train = fresh_run.train.model_copy(update={"phases": (PhaseConfig(kind="attention"),)})
    asked = {"train": train, "cache": _with_queries(fresh_run)}
    never = plan(fresh_run.model_copy(update=asked), tmp_path, capsys, "--samples", "100")
    assert never["online_gpu_hours"] == 0 and never["verdict"].startswith("no pass of the UNet is planned")


@pytest.mark.slow
def test_it_says_why_the_cache_never_pays_and_what_would_change_that(
    fresh_run: Config, tmp_path: Path, capsys: Capture
) -> None:
    def verdict(unet_steps: int, languages: int = 1) -> str:
        phases = (PhaseConfig(kind="attention", steps=5000), PhaseConfig(kind="unet", steps=unet_steps))
        train = fresh_run.train.model_copy(update={"phases": phases})
        config = fresh_run.model_copy(update={"train": train, "cache": _with_queries(fresh_run)})
        return str(plan(config, tmp_path, capsys, "--samples", "9", "--languages", str(languages))["verdict"])

    said = verdict(10)
    assert said.startswith("the cache never pays: ") and "its attention phase" in said
    [enough] = re.findall(r"it pays with ([0-9,]+) or more of them", said)
    steps = int(enough.replace(",", ""))
    assert verdict(steps - 1).startswith("the cache never pays: ")
    assert verdict(steps, 10_000_000).startswith("the cache pays from training")


@pytest.mark.slow
def test_hours_and_bandwidth_follow_the_rate(fresh_run: Config, tmp_path: Path, capsys: Capture) -> None:
    assumed = plan(fresh_run, tmp_path, capsys, "--samples", "1200", "--gpu", "a100")
    assert assumed["tflops"] == pytest.approx(0.35 * 312) and assumed["rate_source"].startswith("assumed, not measured")
    assert "float32 is slower" in assumed["rate_source"], "the tiny teacher computes in float32"
    given = plan(fresh_run, tmp_path, capsys, "--samples", "1200", "--records-per-s", "10")
    assert given["gpu_hours"] == pytest.approx(1200 * 3 / 10 / 3600) and given["rate_source"].endswith("as given")
    expected = given["student_records_per_s"] * given["bytes_per_record"] / 1e6
    assert given["read_mb_per_s"] == pytest.approx(expected)
    for change in given["changes"]:
        if change["settings"] == ["cache.draws_per_sample=1"]:
            assert change["total_gpu_hours"] < given["total_gpu_hours"] and change["total_bytes"] < given["total_bytes"]
            break
    else:
        pytest.fail("fewer draws are a change that this configuration leaves open")


@pytest.mark.slow
def test_the_last_runs_rate_is_taken_before_an_assumption(fresh_run: Config, tmp_path: Path, capsys: Capture) -> None:
    summary = fresh_run.cache_dir("parallel") / CACHE_SUMMARY
    summary.parent.mkdir(parents=True, exist_ok=True)
    summary.write_text(json.dumps({"records": 300, "seconds": 15.0}), "utf-8")
    started = plan(fresh_run, tmp_path, capsys, "--samples", "1200")
    assert started["rate_source"].startswith("assumed, not measured (the last run took 15 s, too few to measure by)")
    summary.write_text(json.dumps({"records": 30_000, "seconds": 1500.0}), "utf-8")
    measured = plan(fresh_run, tmp_path, capsys, "--samples", "1200")
    assert measured["gpu_hours"] == pytest.approx(1200 * 3 / 20 / 3600)
    assert "measured by the last run" in measured["rate_source"]


@pytest.mark.slow
def test_what_a_lost_worker_takes_along_is_said_and_warned_of(
    fresh_run: Config, tmp_path: Path, capsys: Capture
) -> None:
    counted = plan(fresh_run, tmp_path, capsys, "--records-per-s", "0.2")
    assert counted["largest_tar_minutes"] == pytest.approx(12 * 3 / 0.2 / 60), "the larger of two tars"
    for rate, warned in (("0.2", False), ("0.01", True)):
        assert main(["plan", "--config", str(tmp_path / "plan.yaml"), "--records-per-s", rate]) == 0
        [line] = [line for line in capsys.readouterr().out.splitlines() if "takes at most one tar along" in line]
        assert ("warning: " in line and "smaller tars" in line) is warned


def test_an_unknown_number_of_samples_is_asked_for(fresh_run: Config, tmp_path: Path, capsys: Capture) -> None:
    parallel = fresh_run.corpora.parallel.model_copy(update={"tars": (str(tmp_path / "none.tar"),)})
    config = fresh_run.model_copy(update={"corpora": fresh_run.corpora.model_copy(update={"parallel": parallel})})
    path = tmp_path / "plan.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    assert main(["plan", "--config", str(path)]) != 0
    assert "--samples" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs/translations").glob("*.md"))], ids=name)
def test_the_verdict_of_the_readme_is_what_its_command_says(page: Path, verdicts: dict[str, str]) -> None:
    """A reader would want this cache: the paper's rows, five languages."""
    shown = [block.text for block in blocks(page)]
    [number] = [number for number, text in enumerate(shown) if text.startswith("verdict: ")]
    command = shown[number - 1].strip()
    assert command == verdicts["command"] and shown[number].strip() == verdicts["verdict"]
    assert "the cache pays" in shown[number]


@pytest.fixture(scope="module")
def verdicts() -> dict[str, str]:
    """The command of the README, and what it answers."""
    [command] = [
        block.text.strip() for block in blocks(ROOT / "README.md") if block.text.startswith("pea plan --config c")
    ]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.chdir(ROOT):
        assert main(shlex.split(command)[1:]) == 0
    [line] = [line.strip() for line in said.getvalue().splitlines() if "verdict: " in line]
    return {"command": command, "verdict": line}
