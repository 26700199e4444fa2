"""Translation with tiny models of the real classes: as the library does it for one text, whatever the batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_tools.corpus.translation import Side, TranslationSettings, Translator
from pea.errors import CheckpointError, ConfigError
from tests.tiny_translators import SENTENCES, make_m2m100, make_marian, make_nllb

pytestmark = pytest.mark.slow
SETTINGS = TranslationSettings(num_beams=2, max_new_tokens=8, batch_size=3)
KINDS: dict[str, tuple[Callable[[Path], Path], Side, Side]] = {
    "marian": (make_marian, Side("en"), Side("zh")),
    "marian_codes": (lambda folder: make_marian(folder, ("cmn_Hans", "jpn")), Side("en"), Side("zh", "cmn_Hans")),
    "m2m100": (make_m2m100, Side("en"), Side("zh")),
    "nllb": (make_nllb, Side("en", "eng_Latn"), Side("zh", "zho_Hans")),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind."""
    base = tmp_path_factory.mktemp("translators")
    return {name: make(base / name) for name, (make, _, _) in KINDS.items()}


def alone(translator: Translator, text: str) -> str:
    """What the library's own words make of one text."""
    tokenizer, model = translator._tokenizer, translator._model
    given: dict[str, Any] = tokenizer([translator._prefix + text], return_tensors="pt")
    answer = model.generate(
        **given, forced_bos_token_id=translator._forced, num_beams=2, max_new_tokens=8, do_sample=False
    )
    return " ".join(tokenizer.decode(answer[0], skip_special_tokens=True).split())


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_says_what_each_text_alone_would(folders: dict[str, Path], kind: str) -> None:
    _, source, target = KINDS[kind]
    translator = Translator(str(folders[kind]), source, target, SETTINGS)
    found = translator.translate(SENTENCES)
    assert [each.text for each in found] == [alone(translator, text) for text in SENTENCES]
    assert len({each.text for each in found}) > 1 and not any(each.was_cut for each in found)
    assert translator.translate(SENTENCES) == found and translator.translate([]) == []
    assert translator.translate(["a cat " * 40])[0].was_cut
    assert translator.provenance.startswith(f"translation: {kind} ") and translator.provenance.endswith("en > zh")
    json.dumps(translator.record)


def test_the_languages_are_the_models_own(folders: dict[str, Path]) -> None:
    def forced(kind: str, target: Side) -> Any:
        return Translator(str(folders[kind]), KINDS[kind][1], target, SETTINGS)

    chinese = forced("nllb", Side("zh", "zho_Hans"))
    assert chinese._tokenizer.convert_ids_to_tokens(chinese._forced) == "zho_Hans"
    assert chinese._tokenizer.convert_ids_to_tokens(chinese._tokenizer("a")["input_ids"])[0] == "eng_Latn"
    m2m100 = forced("m2m100", Side("zh"))
    assert m2m100._tokenizer.convert_ids_to_tokens(m2m100._forced) == "__zh__"
    assert forced("marian_codes", Side("ja", "jpn"))._prefix == ">>jpn<< "
    for kind, target, said in (
        ("nllb", Side("zh"), "--to zh=zho_Hans"),
        ("m2m100", Side("zh", "zho_Hans"), "one of zh"),
        ("marian_codes", Side("zh"), "one of cmn_Hans, jpn"),
        ("marian", Side("zh", "cmn_Hans"), "this model has one direction"),
    ):
        with pytest.raises(ConfigError, match=said):
            forced(kind, target)
    with pytest.raises(ConfigError, match="one direction"):
        Translator(str(folders["marian"]), Side("en", "eng"), Side("zh"), SETTINGS)


def test_what_is_no_whole_model_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    def damaged(change: Callable[[Path], object]) -> None:
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        shutil.copytree(folders["m2m100"], tmp_path / "model")
        change(tmp_path / "model")
        Translator(str(tmp_path / "model"), Side("en"), Side("zh"), SETTINGS)

    def rewrite(folder: Path, **changes: Any) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def pickled(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    for change, said in (
        (pickled, "no safetensors weights"),
        (lambda folder: rewrite(folder, model_type="t5"), "not a translation model"),
        (lambda folder: rewrite(folder, encoder_layers=2), "missing"),
        (lambda folder: (folder / "config.json").unlink(), "no translation model configuration"),
    ):
        with pytest.raises(CheckpointError, match=said):
            damaged(change)
