"""What each rule leaves out, and what it lets pass."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from data_tools.corpus.bucket_choice import candidate_buckets, lost_share, propose_buckets, shares
from data_tools.corpus.duplicates import EXACT, PERCEPTUAL, Duplicates
from data_tools.corpus.filter_rules import CaptionRule, ColumnRule, prompt_rule, size_rule
from data_tools.corpus.tar_items import TarSample
from data_tools.corpus.tar_to_tar import PartRecord
from pea.corpus.images import place_in_bucket
from pea.errors import CorpusError
from tests.data_tools.corpus.dirt import encoded, pixels


def _sample(image: bytes = b"", **document: Any) -> TarSample:
    return TarSample("k", "jpg", image, document)


def _reason(rule: Any, sample: TarSample, record: PartRecord | None = None) -> str | None:
    return rule(sample, record or PartRecord())


@pytest.mark.parametrize(
    ("rule", "value", "reason"),
    [
        ("x<0.5", 0.4, None),
        ("x<0.5", "0.4", None),
        ("x<0.5", 0.5, "not x < 0.5"),
        ("x <= 0.5", 0.5, None),
        ("x>=5", 4, "not x >= 5"),
        ("x>=5", None, "no x"),
        ("x>=5", "much", "x is no number"),
        ("x==UNLIKELY", "UNLIKELY", None),
        ("x!=UNLIKELY", "UNLIKELY", "not x != UNLIKELY"),
    ],
)
def test_columns(rule: str, value: object, reason: str | None) -> None:
    assert _reason(ColumnRule.parse(rule), _sample(x=value)) == reason


@pytest.mark.parametrize("text", ["x", "x<", "<5", "x<many", "x=5"])
def test_what_is_no_rule_for_a_column(text: str) -> None:
    with pytest.raises(CorpusError, match=r"not a rule for a column|only numbers are larger or smaller"):
        ColumnRule.parse(text)


def test_sizes() -> None:
    sample = _sample(encoded("JPEG"))  # 24 by 16
    assert _reason(size_rule(16, 1.5), sample) is None
    assert _reason(size_rule(17, None), sample) == "shorter side below 17 px"
    assert _reason(size_rule(None, 1.4), sample) == "longer than 1.4 times the shorter side"
    assert _reason(size_rule(1, None), _sample(b"nothing")) == "no image of which the size can be read"


def test_captions_go_one_by_one_and_the_sample_with_the_last() -> None:
    record, sample = PartRecord(), _sample(captions={"en": "a cat on a mat", "zh": "猫", "de": "eine Katze " * 9})
    assert _reason(CaptionRule(2, 50), sample, record) is None
    assert sample.document["captions"] == {"en": "a cat on a mat"}
    assert record.changes == {"captions below 2 characters": 1, "captions above 50 characters": 1}
    assert _reason(CaptionRule(2, 50, needed=("zh",)), sample) == "no caption in zh"
    assert _reason(CaptionRule(200), sample) == "no captions left"
    assert _reason(CaptionRule(), _sample()) == "no captions"


def test_captions_in_another_language_than_they_say() -> None:
    english, chinese = "A small brown dog runs through the high grass.", "一只棕色的小狗在高高的草丛中奔跑。"
    sample = _sample(captions={"en": english, "zh-Hans": chinese, "de": english, "tlh": "nuqneH"})
    assert _reason(CaptionRule(confidence=0.5), sample) is None
    assert sample.document["captions"] == {"en": english, "zh-Hans": chinese, "tlh": "nuqneH"}


def test_prompts_of_the_evaluation() -> None:
    rule = prompt_rule(["A red cat.", "a very long prompt about two green dogs", "猫"])
    leaks = ["a RED  cat", "See: a very long prompt, about two green dogs!", "猫。"]
    assert all(_reason(rule, _sample(captions={"en": text})) == "a prompt of the evaluation" for text in leaks)
    passing = ["a red cat sits", "two green dogs", "一只猫", ""]
    assert not any(_reason(rule, _sample(captions={"en": text})) for text in passing)


def _scene(seed: int) -> Image.Image:
    image = Image.new("RGB", (200, 150), (20 * seed % 255, 90, 160))
    draw = ImageDraw.Draw(image)
    for step in range(6):
        x, y = (37 * seed + 61 * step) % 180, (53 * seed + 29 * step * step) % 130
        draw.ellipse((x, y, x + 50, y + 40), fill=((70 * step + seed * 31) % 255, (40 * step) % 255, 200 - 30 * step))
    return image


def _saved(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_the_same_picture_is_found_whatever_was_done_to_its_file() -> None:
    duplicates, record = Duplicates(perceptual=True), PartRecord()
    assert all(duplicates(_sample(_saved(_scene(seed))), record) is None for seed in range(12))
    first = _scene(3)
    assert duplicates(_sample(_saved(first)), record) == EXACT
    for other in (_saved(first, quality=40), _saved(first, "PNG"), _saved(first.resize((90, 68)))):
        assert duplicates(_sample(other), record) == PERCEPTUAL
    later = Duplicates(perceptual=True)
    later.recall(record)
    assert later(_sample(_saved(first, "PNG")), PartRecord()) == PERCEPTUAL
    exact = Duplicates(perceptual=False)
    assert [exact(_sample(data), PartRecord()) for data in (_saved(first), _saved(first, "PNG"))] == [None, None]


def test_pictures_of_one_colour_are_not_all_the_same() -> None:
    duplicates = Duplicates(perceptual=True)
    found = [duplicates(_sample(_saved(Image.new("RGB", (64, 64), (0, 0, c)))), PartRecord()) for c in (9, 99, 200)]
    assert found == [None, None, None]


@pytest.mark.slow
@given(st.integers(16, 400), st.integers(16, 400))
def test_what_is_cut_off_is_what_the_cache_cuts_off(height: int, width: int) -> None:
    bucket = (64, 96)
    placed = place_in_bucket(pixels(size=(width, height)), [bucket])
    top, left = placed.time_ids[2:4]
    shown = 64 / (64 + 2 * top) * 96 / (96 + 2 * left)
    assert abs((1 - shown) - lost_share((height, width), bucket)) < 0.05


def test_buckets_follow_the_images() -> None:
    sizes = {(1024, 1024): 50, (768, 1152): 40, (1152, 768): 9, (500, 2000): 1}
    buckets = propose_buckets(sizes, 1024 * 1024, 64, 3)
    assert buckets[1] == (1024, 1024)
    assert buckets[0][0] > buckets[0][1] and buckets[2][1] > buckets[2][0]
    found = shares(sizes, buckets)
    assert sum(each.num_images for each in found) == 100
    assert sum(each.lost * each.num_images for each in found) < sum(
        each.lost * each.num_images for each in shares(sizes, [(1024, 1024)])
    )
    assert propose_buckets({(64, 64): 5}, 64 * 64, 64, 8) == [(64, 64)]
    assert all(height % 64 == width % 64 == 0 for height, width in candidate_buckets(512 * 512, 64))
