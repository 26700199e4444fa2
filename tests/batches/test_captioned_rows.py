"""Samples without a caption in the student's languages are left out wherever rows are read; the others lose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pea.batches.attention_batches import AttentionData, EnglishTexts
from pea.batches.captions import count_captioned
from pea.batches.dataset import BatchPlan, TrainingData
from pea.batches.selection import Selection
from pea.cache import Cache
from pea.errors import CacheError
from pea.models.conditioning import Conditioning
from tests.cache_helpers import RECIPE, CacheMaker

PARALLEL_ROWS = 8 * 3


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Eight samples of three records; every one has English, and those that end in 1 Chinese."""
    folder: Path = tmp_path_factory.mktemp("captions")
    return CacheMaker(folder / "cache", samples_per_tar=4).fill()


def data_of(cache: Cache, *languages: str, culture: bool = False, selection: Selection | None = None) -> TrainingData:
    plan, spoken = BatchPlan(2, 0.5 if culture else 0.0, 0), cache if culture else None
    return TrainingData(cache, spoken, plan, RECIPE, 1.0, ("mid_block",), languages, selection=selection)


def names(data: TrainingData | AttentionData, count: int) -> set[str]:
    return {name.partition("#")[0] for index in range(count) for name in data.batch(index).names}  # type: ignore[union-attr]


def test_counts(cache: Cache) -> None:
    found = count_captioned(cache, ["zh", "en", "ko"])
    assert found == (8, 8, {"zh": 2, "en": 8, "ko": 0})
    assert count_captioned(cache, ["zh", "ko"]).num_captioned == 2


def test_rows_without_a_caption_are_left_out(cache: Cache) -> None:
    data = data_of(cache, "zh")
    assert data.num_records == 2 * 3
    assert names(data, data.batches_per_epoch) == {"a/a-24x32-1", "b/b-24x32-1"}
    assert all(text.startswith("说明") for i in range(6) for text in data.batch(i).native_captions if text)
    assert data_of(cache, "en").num_records == PARALLEL_ROWS


def test_a_row_draws_among_the_languages_that_it_has(cache: Cache) -> None:
    data = data_of(cache, "zh", "en")
    assert data.num_records == PARALLEL_ROWS
    both = set[bool]()
    for index in range(60):
        batch = data.batch(index)
        for name, text in zip(batch.names, batch.native_captions, strict=True):
            if text and name.partition("#")[0].endswith("1"):
                both.add(text.startswith("说明"))
            elif text:
                assert text.startswith("caption")
    assert both == {True, False}


def test_culture_rows_too(cache: Cache) -> None:
    data = data_of(cache, "zh", culture=True)
    assert data.num_culture_samples == 2 * 3, "this cache has records"
    assert names(data, 12) == {"a/a-24x32-1", "b/b-24x32-1"}


def test_and_phases_without_the_unet(cache: Cache) -> None:
    def encode(texts: object) -> tuple[torch.Tensor, None]:
        return torch.zeros(len(texts), 1, 4), None  # type: ignore[arg-type]

    english, empty = EnglishTexts(encode, "en"), Conditioning(torch.zeros(1, 1, 4), None)
    for languages, count in ((("zh",), 6), (("zh", "en"), PARALLEL_ROWS)):
        data = AttentionData(cache, languages, 3, 0, empty, with_queries=False, english=english)
        texts = [text for index in range(20) for text in data.batch(index).native_captions if text]
        assert data.num_records == count
        assert {text.startswith("说明") for text in texts} == ({True} if count == 6 else {True, False})


def test_held_out_rows_and_the_others_are_those_with_captions(cache: Cache) -> None:
    for fraction in (0.3, 0.5, 0.7):
        counts = []
        for held_out in (False, True):
            try:
                counts.append(data_of(cache, "zh", selection=Selection(fraction, held_out)).num_records)
            except CacheError:
                counts.append(0)
        assert sum(counts) == 6


def test_none_is_left(cache: Cache) -> None:
    with pytest.raises(CacheError, match=r"no rows are left; got .*languages=\('ko',\).*student\.language"):
        data_of(cache, "ko")


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_culture_rows_come_at_any_batch_size(cache: Cache, batch_size: int) -> None:
    plan = BatchPlan(batch_size, 0.25, 0)
    data = TrainingData(cache, cache, plan, RECIPE, 1.0, ("mid_block",), ("en",))
    sizes = [(batch.num_parallel, len(batch)) for batch in map(data.batch, range(40))]
    assert sizes == [(first, first + second) for first, second in map(data.num_rows, range(40))]
    assert sum(length - first for first, length in sizes) == 10 * batch_size == sum(n for _, n in sizes) // 4
    assert data.fingerprint, "a state of an older version is of another mixture"
    one_epoch = [name for i in range(data.batches_per_epoch) for name in data.batch(i).names[: data.num_rows(i)[0]]]
    assert len(one_epoch) == len(set(one_epoch))
