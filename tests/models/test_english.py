"""The tokenizer beside an English encoder is that encoder's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pea.errors import CheckpointError
from pea.models.english import EnglishEncoder
from stages.command.preflight import check_checkpoint
from tests.tiny_models import make_checkpoint


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("english") / "teacher", "sdxl")


def refused(checkpoint: Path, said: str) -> None:
    for ask in (check_checkpoint, EnglishEncoder.from_checkpoint):
        with pytest.raises(CheckpointError, match=said) as caught:
            ask(checkpoint)
        assert "\n" not in str(caught.value)


def test_a_tokenizer_of_a_larger_vocabulary_is_refused(sdxl: Path, tmp_path: Path) -> None:
    """Its first caption with one of these tokens would end the pass."""
    checkpoint = tmp_path / "teacher"
    shutil.copytree(sdxl, checkpoint)
    path = checkpoint / "tokenizer_2/tokenizer.json"
    said = json.loads(path.read_text())
    said["model"]["vocab"] |= {f"zz{index}</w>": 1000 + index for index in range(3)}
    path.write_text(json.dumps(said))
    refused(checkpoint, "the tokenizer knows more tokens than the text encoder; expected 54; got 57")


@pytest.mark.parametrize("end", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in (10**9, None))])
def test_a_text_encoder_that_looks_for_another_end_is_refused(end: int | None, sdxl: Path, tmp_path: Path) -> None:
    """Its pooled embedding would be that of the first token, whatever the caption."""
    checkpoint = tmp_path / "teacher"
    shutil.copytree(sdxl, checkpoint)
    path = checkpoint / "text_encoder_2/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": end}))
    refused(checkpoint, "differ in the token that ends a text; expected eos_token_id 53, or 2; got")


def test_the_usual_ends_pass(sdxl: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "teacher"
    shutil.copytree(sdxl, checkpoint)
    path = checkpoint / "text_encoder_2/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": 2}))
    check_checkpoint(checkpoint)
    assert EnglishEncoder.from_checkpoint(checkpoint).encode(["a cat"]).pooled_prompt_embeds is not None
