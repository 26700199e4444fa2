"""The report: one page that needs nothing else, and says of a run folder what is in it and nothing more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data_tools.report import page as report
from data_tools.report.examples import furthest_behind, varied
from data_tools.report.rows import COLUMNS, LABELS
from pea.config import Config
from pea.errors import EvaluationError
from pea.evaluation.prompts import Prompt
from stages import train_adapter
from stages.command.console import Console
from tests.data_tools.report.runs import page_of, said_by, score_of
from tests.tiny_setup import make_setup

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A trained run, without an evaluation."""
    config = make_setup(tmp_path_factory.mktemp("report"))
    train_adapter.run(config, QUIET)
    return config


_FULL = {
    "teacher.general": score_of(0.8, attributes={"shape": 0.9, "colour": 0.7}),
    "translation.general": score_of(0.4),
    "no_adapter.general": score_of(0.1),
    "adapter.general": score_of(0.6, attributes={"shape": 0.8, "colour": 0.4}),
}


def test_a_whole_run(config: Config, tmp_path: Path) -> None:
    """Trained, drawn, scored, with its cache."""
    page = page_of(
        config.model_copy(update={"run_dir": config.run_dir}),
        tmp_path / "run",
        details=_FULL,
        cache_root=config.run_dir / "cache" if config.cache_root is None else config.cache_root,
    )
    said = said_by(page)
    assert "75% of the teacher's score, general prompts 0.600 of 0.800" in said
    assert "一只猫0" in said and "word for word: one animal cat0" in said and "English: a cat <b>0" in said
    assert "a cat &lt;b&gt;0" in page, "other people's text is no markup"
    assert "The adapter by attribute" in said and said.index("colour 0.400") < said.index("shape 0.800"), "worst first"
    assert "0.550 to 1.050, n = 2" in said, "intervals as they are recorded"
    assert "mid_block" in said and "What the cache holds of one image" in said
    assert "denoising steps 16, guidance 2.0" in said
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) > len(COLUMNS)
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources), "needs no other file"


def test_links_inside_the_page_lead_somewhere_and_pictures_have_texts(config: Config, tmp_path: Path) -> None:
    page = page_of(config, tmp_path / "run", details=_FULL)
    for target in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{target}"' in page
    images = re.findall(r"<img ([^>]*)>", page)
    assert images and all(re.search(r'alt="[^"]*"', image) for image in images)
    assert 'alt="native encoder, trained adapter: 一只猫0"' in page
    assert '<html lang="en">' in page and 'lang="zh" dir="auto"' in page
    assert len(re.findall("<th(?: [^>]*)?>", page)) == len(re.findall('<th scope="(?:row|col)">', page))


def test_training_is_told_by_phase(config: Config, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/adapter").symlink_to(config.adapter_dir)
    (tmp_path / "run/training").symlink_to(config.training_dir)
    page = page_of(config, tmp_path / "run", details=_FULL)
    said = said_by(page)
    assert "4 optimizer steps with the UNet in " in said and "With the unet" not in said
    assert page.count('<svg class="chart"') == len(config.train.all_phases)
    assert "Terms are weighted as in the loss, and add up to the total." in said


def test_ten_runs_of_other_people(config: Config, tmp_path: Path) -> None:
    """Nothing is said that is not so; each of them lacks what the demo has."""
    whole = said_by(page_of(config, tmp_path / "whole", details=_FULL))
    assert "culture" not in whole.lower(), "no culture corpus, no culture prompts: not a word of them"
    assert "no training image" not in whole and "Training" not in whole, "converted: there is neither log nor summary"
    assert "What the cache holds" not in whole

    clip = {name: score_of(0.3) for name in ("teacher.general.clip", "adapter.general.clip")}
    said = said_by(page_of(config, tmp_path / "clip", details=clip))
    assert "0.300 CLIP score, general prompts the teacher's is 0.300" in said
    assert "judge" not in said and "% of the teacher" not in said, "cosines have no shares"

    one = {"adapter.general.clip": {"mean": {"accuracy": 0.3, "low": None, "high": None, "n": 1}}}
    said = said_by(page_of(config, tmp_path / "one", details=one, drawn={"adapter": ["p0"]}))
    assert "0.300 n = 1" in said and "The only prompt that was drawn." in said and "dashed line" not in said

    said = said_by(
        page_of(config, tmp_path / "alone", details={"adapter.general": score_of(0.6)}, drawn={"adapter": ["p0"]})
    )
    assert "60.0% of the attributes shown, general prompts" in said and "teacher's score" not in said
    assert "word for word" not in said, "nothing was drawn from a translation"

    other_n = {"teacher.general": score_of(0.8, 64), "adapter.general": score_of(0.6, 2)}
    said = said_by(page_of(config, tmp_path / "other_n", details=other_n))
    assert "75%" not in said and "60.0% of the attributes shown" in said, "scores of other numbers do not compare"

    said = said_by(page_of(config, tmp_path / "unscored"))
    assert "6 images drawn, and nothing has scored them." in said and "Scores" not in said

    rows = {row: ["p0", "p1"] for row in ("teacher", "no_adapter", "adapter", "adapter_ja")}
    said = said_by(page_of(config, tmp_path / "more", drawn=rows))
    assert "8 images drawn, and nothing has scored them." in said, "also those that are not shown side by side"

    said = said_by(page_of(config, tmp_path / "nothing", drawn={}))
    assert "no evaluation of it is finished" in said and "Pictures" not in said and "general prompts" not in said

    said = said_by(page_of(config, tmp_path / "stale", details=_FULL, recorded=["adapter"]))
    assert "teacher, English caption: " not in said and said.count("teacher, English caption") == 1, (
        "in the scores only"
    )

    both = config.student.model_copy(update={"language": ("zh", "ja")})
    details = _FULL | {"adapter_ja.general": score_of(0.5)}
    said = said_by(page_of(config, tmp_path / "two", details=details, student=both))
    assert "zh and ja prompts for teacher" in said and "native encoder, trained adapter, ja 0.500" in said

    culture = {
        "teacher.culture_described": score_of(1.0, 7),
        "adapter.culture": score_of(0.9, 7, concepts={"面": 1, "饼": 0}),
    }
    said = said_by(page_of(config, tmp_path / "culture", details=culture, prompt_set="culture"))
    assert "90% of the teacher's score, culture prompts" in said and "The adapter by concept, the worst first" in said
    assert said.index("饼 0.000") < said.index("面 1.000")


def test_a_caption_from_right_to_left_is_shown_so(config: Config, tmp_path: Path) -> None:
    arabic = config.student.model_copy(update={"language": ("ar",)})
    page = page_of(config, tmp_path / "run", captions={"ar": "قطة", "en": "a cat"}, student=arabic)
    assert 'lang="ar" dir="auto">قطة0</div>' in page


def test_large_pictures_are_shown_smaller(config: Config, tmp_path: Path) -> None:
    page = page_of(config, tmp_path / "run", size_px=1024)
    assert page.count("data:image/jpeg;base64,") == 6 and 'width="512" height="512"' in page
    assert 'data-file="evaluate/adapter/general/p0.png"' in page, "where every pixel is"
    assert len(page) < 8 * 2**20


def test_only_what_was_drawn_is_shown(config: Config, tmp_path: Path) -> None:
    page = page_of(config, tmp_path / "run", drawn={"teacher": ["p0"], "adapter": ["p0", "p1"]})
    assert page.count("<figcaption>teacher, English caption") == 1 and page.count(">not drawn</div>") == 1
    assert LABELS["translation"] not in page


def test_nothing_to_report_before_an_evaluation(config: Config, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="Run `pea eval` first"):
        report.write_report(config.model_copy(update={"run_dir": tmp_path}))


def test_each_kind_of_prompt_comes_once_first() -> None:
    def prompt(name: str, **attributes: str) -> Prompt:
        return Prompt(name, {}, attributes)

    prompts = [prompt("a", concept="x", light="on"), prompt("b", concept="x"), prompt("c", concept="y"), prompt("d")]
    assert [each.id for each in varied(prompts)] == ["a", "c", "d", "b"]
    scores = {"adapter": {"a": 0.5, "b": 0.0, "c": 1.0}, "teacher": {"a": 1.0, "b": 0.0, "c": 1.0}}
    assert [each.id for each in furthest_behind(prompts, scores)] == ["a"], (
        "where the teacher fails too, nothing is behind"
    )
    assert [each.id for each in furthest_behind(prompts, {"adapter": scores["adapter"]})] == ["b", "a"]
