"""Two encoders side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pea.config import Config
from pea.config.student import StudentConfig
from pea.errors import CheckpointError
from pea.models.adapter import PEA
from pea.models.encoders.pair import EncoderPair, load_encoder
from pea.models.native import NativeEncoder, check_encoder
from pea.pipeline import PEAPrompt
from stages import train_adapter
from stages.command.console import Console
from tests.models.encoders.tiny import make_encoder
from tests.tiny_models import make_native_encoder
from tests.train_runs import variant

TEXTS = ["一只猫", "a b c d e f"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("pair")
    return make_encoder(root / "multilingual", "e5"), make_native_encoder(root / "chinese")


def test_widths_add_up_and_the_length_is_one(folders: tuple[Path, Path]) -> None:
    pair = load_encoder(folders)
    assert isinstance(pair, EncoderPair)
    assert pair.width == 48 and pair.max_tokens == 10  # the small Chinese one reads no more
    hidden, mask = pair.encode(TEXTS)
    alone = [NativeEncoder.from_pretrained(folder, reading={"max_tokens": 10}).encode(TEXTS) for folder in folders]
    assert torch.equal(hidden, torch.cat([alone[0][0], alone[1][0]], dim=-1))
    assert torch.equal(mask, torch.maximum(alone[0][1], alone[1][1]))


def test_two_long_ones_read_what_the_original_reads(folders: tuple[Path, Path]) -> None:
    assert load_encoder([folders[0], folders[0]]).max_tokens == 64


@pytest.mark.slow
def test_an_adapter_knows_both(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pair = load_encoder(folders, reading={"max_tokens": 7, "hidden_state": -2})
    adapter = PEA(48, 6, 4, hidden_size=8, max_tokens=7, encoder=pair.record)
    adapter.save_pretrained(tmp_path / "adapter")
    prompt = PEAPrompt.from_pretrained(tmp_path / "adapter", folders)
    assert torch.equal(prompt.encoder.encode(TEXTS)[0], pair.encode(TEXTS)[0])
    with pytest.raises(CheckpointError, match="two text encoders"):
        PEAPrompt.from_pretrained(tmp_path / "adapter", folders[0])
    other = make_native_encoder(tmp_path / "other", seed=9)
    with pytest.raises(CheckpointError, match=r"another text encoder.*multilingual \+ chinese with tensors"):
        PEAPrompt.from_pretrained(tmp_path / "adapter", [folders[0], other])
    check_encoder(pair.record, pair)


def test_three_are_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(CheckpointError, match="got 3"):
        load_encoder([*folders, folders[0]])


@pytest.mark.slow
def test_an_adapter_for_both_is_trained_and_used(tiny_sdxl: Config, tmp_path: Path, folders: tuple[Path, Path]) -> None:
    student = tiny_sdxl.student.model_copy(update={"encoder": folders, "max_tokens": 6, "hidden_state": -2})
    run = variant(tiny_sdxl, tmp_path).model_copy(update={"student": student})
    train_adapter.run(run, Console(quiet=True))
    pea = PEAPrompt.from_pretrained(run.adapter_dir, student.encoders)
    assert pea.adapter.config.input_dim == 48 and pea.adapter.config.encoder["hidden_state"] == [-2, -2]
    assert pea("一只猫")["prompt_embeds"].shape == (1, 6, 32)
    assert "`multilingual` and `chinese`" in (run.adapter_dir / "README.md").read_text()


def test_the_setting_takes_one_folder_or_two() -> None:
    assert StudentConfig(encoder=Path("a")).encoders == (Path("a"),)
    two = StudentConfig.model_validate_json('{"encoder": ["a", "b"]}', strict=True)
    assert two.encoders == (Path("a"), Path("b"))
    with pytest.raises(ValueError, match="encoder"):
        StudentConfig.model_validate_json('{"encoder": ["a", "b", "c"]}', strict=True)
