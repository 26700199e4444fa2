"""A model is about as large as its files, or it is refused before it is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModel, BertConfig, BertModel

from pea.errors import CheckpointError
from pea.models.adapter import PEA
from pea.models.unfilled import check_size, unfilled
from tests.tiny_models import make_native_encoder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_native_encoder(tmp_path_factory.mktemp("unfilled") / "bert", "bert")


def test_nothing_is_allocated(bert: Path) -> None:
    model = unfilled(AutoModel, bert)
    assert isinstance(model, BertModel) and all(each.is_meta for each in model.parameters())
    assert unfilled(AutoModel, bert, BertConfig(num_hidden_layers=1)).config.num_hidden_layers == 1


def test_a_part_that_is_not_in_the_file_is_no_matter(bert: Path) -> None:
    check_size(AutoModel, bert)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    check_size(AutoModel, bert, BertConfig(**sizes, vocab_size=1_000_000))  # 16 million numbers


def test_a_model_of_other_dimensions_than_its_files_is_refused(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"far larger model than the weights are; expected about [\d,]+ numbers"):
        check_size(AutoModel, bert, BertConfig(vocab_size=10**9))
    PEA(8, 6, 4, hidden_size=8).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 40_000}))
    with pytest.raises(CheckpointError, match=r"far larger model.*got 1,600,\d{3},\d{3}"):
        check_size(PEA, tmp_path)


def test_what_cannot_be_made_is_left_to_the_loader(tmp_path: Path, bert: Path) -> None:
    check_size(AutoModel, tmp_path)
    check_size(PEA, bert.parent)
