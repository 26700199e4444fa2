"""Blind ratings: the page tells nothing, sides are even, and win rates count prompts and not clicks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_tools.report.rating import first_is_left, rating_page, win_rates
from pea.config import Config
from pea.errors import EvaluationError
from stages.cli import main

ROWS = ("adapter", "translation")
SETTINGS = {"prompts": "d" * 64, "seed": 0, "num_inference_steps": 4}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    prompts = tmp_path / "culture.jsonl"
    lines = [
        {"id": f"p{n}", "captions": {"zh": f"面{n}</script>"}, "attributes": {"concept": f"dish {n % 4}"}}
        for n in range(40)
    ]
    prompts.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    for value, row in enumerate(ROWS):
        folder = tmp_path / "run/evaluate" / row / "culture"
        folder.mkdir(parents=True)
        for n in range(40):
            Image.fromarray(np.full((8, 8, 3), 100 * value + n, np.uint8)).save(folder / f"p{n}.png")
    drawings = {f"{row}/culture": {"row": row, **SETTINGS} for row in ROWS}
    (tmp_path / "run/metrics.json").write_text(json.dumps({"drawings": drawings}))
    raw = {
        "run_dir": str(tmp_path / "run"),
        "teacher": {"checkpoint": "x"},
        "corpora": {"parallel": {"tars": ["x.tar"]}},
        "student": {"encoder": "x", "language": "zh"},
        "evaluate": {"prompts": {"culture": str(prompts)}},
    }
    (tmp_path / "setup.yaml").write_text(json.dumps(raw))
    return Config.model_validate_json(json.dumps(raw))


def _embedded(page: str, name: str) -> Any:
    found = re.search(rf'<script id="{name}" type="application/json">(.*?)</script>', page, flags=re.S)
    assert found is not None
    return json.loads(found[1])


def test_the_page_does_not_tell_which_is_which(config: Config) -> None:
    page = rating_page(config, ROWS, "culture", seed=3)
    items = _embedded(page, "items")
    assert {item["id"] for item in items} == {f"p{n}" for n in range(40)}
    assert [item["id"] for item in items] != [f"p{n}" for n in range(40)], "in random order"
    assert items[0]["prompt"].endswith("</script>"), "other people's text cannot end the script"
    assert set(items[0]) == {"id", "prompt", "english", "left", "right"}
    assert "evaluate/adapter" not in page and page == rating_page(config, ROWS, "culture", seed=3)
    left = [first_is_left(3, item["id"]) for item in items]
    assert 8 < sum(left) < 32, "each side about as often"
    assert len(_embedded(rating_page(config, ROWS, "culture", seed=3, limit=5), "items")) == 5


def _rated(page: str, path: Path, prefer: str, seed: int = 3) -> Path:
    """A file as the page saves it, of somebody who always prefers one row."""
    sides = {True: "left", False: "right"}
    choices = {
        item["id"]: "tie" if prefer == "tie" else sides[first_is_left(seed, item["id"]) == (prefer == ROWS[0])]
        for item in _embedded(page, "items")
    }
    path.write_text(json.dumps(_embedded(page, "facts") | {"rater": prefer, "choices": choices}), encoding="utf-8")
    return path


def test_win_rates(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = rating_page(config, ROWS, "culture", seed=3)
    always = _rated(page, tmp_path / "a.json", "adapter")
    never = _rated(page, tmp_path / "b.json", "translation")
    even = _rated(page, tmp_path / "c.json", "tie")
    [one] = win_rates([always])
    assert (one.wins, one.ties, one.losses) == (40, 0, 0) and one.rate.accuracy == 1 and one.rate.n == 4
    assert one.rate.low < 0.7, "four concepts do not prove a fifth"
    [three] = win_rates([always, never, even])
    assert (three.wins, three.ties, three.losses) == (40, 40, 40) and three.rate.accuracy == 0.5
    assert main(["rate", "count", str(always), str(even)]) == 0
    assert "culture: adapter is preferred to translation in 75.0% (" in capsys.readouterr().out
    assert main(["rate", "count", str(always), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["wins"] == 40


def test_the_command_writes_the_page(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rating.html"
    assert main(["rate", "page", "--config", str(tmp_path / "setup.yaml"), "--out", str(out), "--limit", "3"]) == 0
    assert capsys.readouterr().out.startswith(f"{out} (") and len(_embedded(out.read_text("utf-8"), "items")) == 3


def test_what_cannot_be_compared_is_refused(config: Config, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"expected culture; got general\. Name one with --set"):
        rating_page(config, ROWS, "general", seed=0)
    with pytest.raises(EvaluationError, match="not drawn: teacher; expected two of adapter, translation"):
        rating_page(config, ("adapter", "teacher"), "culture", seed=0)
    other = {f"{row}/culture": {"row": row, **SETTINGS, "seed": seed} for seed, row in enumerate(ROWS)}
    (config.run_dir / "metrics.json").write_text(json.dumps({"drawings": other}))
    with pytest.raises(EvaluationError, match="different settings"):
        rating_page(config, ROWS, "culture", seed=0)


@pytest.mark.parametrize("text", ["", "[]", '{"choices": {}}', '{"page": 1}'])
def test_files_that_are_no_ratings(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    assert main(["rate", "count", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "not a file of ratings" in error and str(path) in error
    assert "validation error" not in error, "what is wrong in it, and not how many things"
