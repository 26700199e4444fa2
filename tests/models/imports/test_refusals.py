"""What is no published encoder is refused in one line, and nothing in it is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pea.errors import CheckpointError
from pea.models.imports.importing import import_encoder
from pea.models.imports.layouts import LAYOUTS
from tests.hostile_pickles import WRITERS, write_hostile
from tests.models.imports.test_imports import bert, renamed, ruclip_state
from tests.models.imports.tokenizer_folders import write_vocabulary


def refused(source: Path, out: Path, words: str, tokenizer: Path | None = None) -> str:
    with pytest.raises(CheckpointError, match=words) as caught:
        import_encoder(source, out, tokenizer)
    assert not out.exists() and not list(out.parent.glob(f"*{out.name}*")) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_that_would_run_something_is_refused(writer: str, tmp_path: Path) -> None:
    path, trace = tmp_path / "in.bin", tmp_path / "it ran"
    write_hostile(path, trace, writer, "bert.embeddings.word_embeddings.weight")
    refused(path, tmp_path / "out", "more than plain tensors")
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "in.pt")
    refused(tmp_path / "in.pt", tmp_path / "out", "TorchScript")


def test_an_unknown_layout_names_those_that_are_known(tmp_path: Path) -> None:
    torch.save({"encoder.weights.0": torch.zeros(2), "b": torch.zeros(1)}, tmp_path / "in.pt")
    message = refused(tmp_path / "in.pt", tmp_path / "out", "not a layout that is known")
    assert all(layout.name in message for layout in LAYOUTS) and "b, encoder.weights.0" in message
    torch.save([1, 2], tmp_path / "in.pt")
    refused(tmp_path / "in.pt", tmp_path / "out", "no tensors by name")


def test_a_configuration_with_code_of_its_own_is_not_run(tmp_path: Path) -> None:
    config = {"model_type": "own", "auto_map": {"AutoModel": "modeling_own.OwnModel"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modeling_own.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    refused(tmp_path, tmp_path / "out", "not a layout that is known")
    assert not (tmp_path / "it ran").exists()


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    state = renamed(bert(), "bert.", text_projection=torch.zeros(128, 8))
    vocabulary = write_vocabulary(tmp_path / "vocabulary")
    for name in ("encoder.layer.1.attention.self.query.weight", "embeddings.position_embeddings.weight"):
        torch.save({key: each for key, each in state.items() if key != f"bert.{name}"}, tmp_path / "in.pt")
        refused(tmp_path / "in.pt", tmp_path / "out", name, vocabulary)
    ruclip = {name: each for name, each in ruclip_state().items() if not name.endswith("1.ln_2.bias")}
    torch.save(ruclip, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"transformer_heads": 2}')
    refused(tmp_path / "pytorch_model.bin", tmp_path / "out", r"resblocks\.1\.ln_2\.bias", vocabulary)


def test_what_a_file_does_not_say_is_asked_for(tmp_path: Path) -> None:
    torch.save(ruclip_state(), tmp_path / "in.pt")
    vocabulary = write_vocabulary(tmp_path / "vocabulary")
    refused(tmp_path / "in.pt", tmp_path / "out", "how many heads", vocabulary)
    narrow = {"hidden_size": 40, "num_attention_heads": 5, "intermediate_size": 8}
    torch.save(renamed(bert(**narrow), "bert.", text_projection=torch.zeros(40, 8)), tmp_path / "in.pt")
    refused(tmp_path / "in.pt", tmp_path / "out", "how many attention heads", vocabulary)
    refused(tmp_path / "in.pt", tmp_path / "out", r"no tokenizer lies beside.*--tokenizer")
    torch.save(renamed(bert(), "bert.", text_projection=torch.zeros(128, 8)), tmp_path / "in.pt")
    refused(tmp_path / "in.pt", tmp_path / "out", "no tokenizer here", tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    state = renamed(bert(vocab_size=20), "bert.", text_projection=torch.zeros(128, 8))
    torch.save(state, tmp_path / "in.pt")
    refused(
        tmp_path / "in.pt",
        tmp_path / "out",
        "not this model's; expected 20 tokens; got 37",
        write_vocabulary(tmp_path / "vocabulary"),
    )


def test_sources_that_are_not_there_or_not_clear(tmp_path: Path) -> None:
    refused(tmp_path / "absent", tmp_path / "out", "no such file or folder")
    (tmp_path / "in").mkdir()
    refused(tmp_path / "in", tmp_path / "out", r"no file of weights.*flax_model\.msgpack")
    for name in ("a.pt", "b.pt"):
        (tmp_path / "in" / name).write_bytes(b"")
    refused(tmp_path / "in", tmp_path / "out", r"several files of weights.*a\.pt, b\.pt")
    (tmp_path / "in/pytorch_model.bin.index.json").write_text("[]")
    refused(tmp_path / "in", tmp_path / "out", "cannot read the index of the weights")
    (tmp_path / "taken").mkdir()
    with pytest.raises(CheckpointError, match="something here already"):
        import_encoder(tmp_path / "in", tmp_path / "taken")


def test_a_yttm_model_that_is_none(tmp_path: Path) -> None:
    torch.save(ruclip_state(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"transformer_heads": 2}')
    (tmp_path / "bpe.model").write_text("2 1\n1 2 3")
    refused(tmp_path, tmp_path / "out", "not a YouTokenToMe model")
    (tmp_path / "bpe.model").write_text("3 4\n97 4 98 5 99 6\n4 5 7\n7 6 8\n5 6 9\n4 9 10\n1 0 2 3")
    refused(tmp_path, tmp_path / "out", "spelt alike")
