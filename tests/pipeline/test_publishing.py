"""An adapter's folder as it is published: nothing but what others need, and everything that they need."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from pea.errors import CheckpointError
from pea.evaluation.record import adapter_digest
from pea.file_names import LORA_FILE
from pea.models.adapter import PEA
from pea.pipeline import PEAPrompt
from pea.pipeline.card import CardFacts, model_card, read_front_matter, read_scores
from pea.pipeline.publishing import CARD, PICTURE, prepare
from tests.loopback_hub import SHA
from tests.pipeline.pipes import make_parts
from tests.tiny_models import ENCODER_RECORD, make_native_encoder

LICENCE = {"licence": "apache-2.0"}


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_parts(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def known(parts: Path, tmp_path: Path) -> Path:
    """A run's adapter that names its encoder and base model as the hub does, with what older runs left beside it."""
    folder = tmp_path / "run/adapter"
    shutil.copytree(parts / "adapter", folder)
    config = json.loads((folder / "config.json").read_text())
    config["encoder"] |= {"name": f"org/zh@{SHA}", "places": ["/home/somebody/zh"]}
    config["base_model"] = {"name": "org/sd@v1", "unet": None}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "train_log.jsonl").write_text("{}")
    (folder / "states/step-1").mkdir(parents=True)
    (folder / "states/step-1/adapter.safetensors").write_bytes(b"0")
    return folder


def run_snippet(card: str) -> Any:
    """What the Python lines of a card leave as `image`."""
    [code] = re.findall(r"^```python\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["image"]


def test_the_folder_that_is_published(known: Path, tmp_path: Path) -> None:
    files = prepare(known, tmp_path / "out", "org/sd-zh", **LICENCE)
    names = {"config.json", "diffusion_pytorch_model.safetensors", "README.md"}
    assert {path.name for path in files} == names == {path.name for path in (tmp_path / "out").iterdir()}
    text = "".join(path.read_text("utf-8", "replace") for path in files)
    assert "somebody" not in text and str(tmp_path) not in text, "nothing of this machine"
    before, after = PEA.load(known), PEA.load(tmp_path / "out")
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert after.config.encoder["name"] == f"org/zh@{SHA}" and "places" not in after.config.encoder
    head, body = read_front_matter((tmp_path / "out/README.md").read_text("utf-8"))
    kind = "stable-diffusion" if after.config.pooled_dim is None else "stable-diffusion-xl"
    assert head == {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["pea-diffusion", "text-to-image", "adapter", kind],
        "language": ["zh"],
        "license": "apache-2.0",
        "base_model": "org/sd",
        "base_model_relation": "adapter",
    }
    assert 'from_pretrained("org/sd", revision="v1")' in body and 'from_pretrained("org/sd-zh")' in body


def test_scores_pictures_and_lora(known: Path, tmp_path: Path) -> None:
    mean = {"accuracy": 0.91234, "low": 0.8, "high": 1.0, "n": 7}
    details = {name: {"mean": mean} for name in ("adapter.general", "adapter.general.clip", "teacher.general")}
    (known.parent / "metrics.json").write_text(json.dumps({"details": details, "seconds.train": 3.0}))
    grid = known.parent / "evaluate/adapter/general/grid.png"
    grid.parent.mkdir(parents=True)
    grid.write_bytes(b"picture")
    save_file({"unet.a.lora_A.weight": torch.ones(1, 2)}, known / LORA_FILE)
    prepare(known, tmp_path / "out", "org/sd-zh", **LICENCE)
    assert (tmp_path / "out/samples.png").read_bytes() == b"picture"
    assert (tmp_path / "out" / LORA_FILE).read_bytes() == (known / LORA_FILE).read_bytes()
    card = (tmp_path / "out/README.md").read_text("utf-8")
    head, body = read_front_matter(card)
    assert "lora" in head["tags"] and 'pipe.load_lora_weights("org/sd-zh")' in body and "](samples.png)" in body
    [result] = head["model-index"][0]["results"]
    assert [(each["type"], each["name"], each["value"]) for each in result["metrics"]] == [
        ("accuracy", "general, judge's accuracy", 0.9123),
        ("clip_score", "general, CLIP score", 0.9123),
    ]
    assert "| general, CLIP score | 0.9123 |" in body
    for broken in ("{", "[]", '{"details": {"adapter.x": 3}}', "{}"):
        (known.parent / "metrics.json").write_text(broken)
        assert read_scores(known.parent, "") == {}


def test_scores_and_pictures_of_another_adapter_are_not_its_own(known: Path, tmp_path: Path) -> None:
    """It was trained anew after the evaluation."""
    mean = {"mean": {"accuracy": 0.9, "low": 0.8, "high": 1.0, "n": 7}}
    nan = {"mean": {"accuracy": float("nan"), "low": None, "high": None, "n": 7}}
    grid = known.parent / "evaluate/adapter/general/grid.png"
    grid.parent.mkdir(parents=True)
    grid.write_bytes(b"picture")
    for number, adapter in enumerate(("another", adapter_digest(known))):
        settings = {"settings": {"row": "adapter", "prompt_set": "general", "adapter": adapter}}
        record = {
            "details": {"adapter.general": mean | settings, "adapter.general.clip": nan | settings},
            "drawings": {"adapter/general": settings["settings"]},
        }
        (known.parent / "metrics.json").write_text(json.dumps(record))
        files = prepare(known, tmp_path / str(number), "org/sd-zh", **LICENCE)
        card = (tmp_path / str(number) / "README.md").read_text("utf-8")
        assert ("0.9" in card) == bool(number) == ("samples.png" in [file.name for file in files])
        assert "nan" not in card, "a score that is no number says nothing"


def test_a_card_in_other_words_stays(known: Path, tmp_path: Path) -> None:
    (known / "README.md").write_text("---\nlicense: openrail++\ntags: [mine]\n---\n# My adapter\n\nOwn words.\n")
    prepare(known, tmp_path / "out", "org/sd-zh")
    head, body = read_front_matter((tmp_path / "out/README.md").read_text("utf-8"))
    assert body == "# My adapter\n\nOwn words.\n"
    assert head["license"] == "openrail++" and head["tags"] == ["mine"] and head["base_model"] == "org/sd"


def test_what_is_said_now_counts_before_a_card(known: Path, tmp_path: Path) -> None:
    (known / "README.md").write_text("---\nlicense: openrail++\nlanguage: en\ntags: [mine]\n---\n# Mine\n")
    prepare(known, tmp_path / "out", "org/sd-zh", licence="mit", languages=["zh-Hans", "zh-Hant", "pt_BR"])
    head, _ = read_front_matter((tmp_path / "out/README.md").read_text("utf-8"))
    assert (head["license"], head["language"], head["tags"]) == ("mit", ["zh", "pt"], ["mine"])


@pytest.mark.parametrize("kept", ["[mit, apache-2.0]", "MIT", "5", "{a: b}"])
def test_a_licence_of_a_card_is_one_that_the_hub_knows(kept: str, known: Path, tmp_path: Path) -> None:
    (known / "README.md").write_text(f"---\nlicense: {kept}\n---\n# Mine\n")
    with pytest.raises(CheckpointError, match="not one licence as the hub spells it") as caught:
        prepare(known, tmp_path / "out", "org/sd-zh")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    prepare(known, tmp_path / "out", "org/sd-zh", licence="creativeml-openrail-m")


def test_the_licence_is_the_adapters_alone(known: Path, tmp_path: Path) -> None:
    prepare(known, tmp_path / "out", "org/sd-zh", licence="openrail++")
    assert "the diffusion model and the text encoder have their own" in (tmp_path / "out/README.md").read_text("utf-8")


def test_what_it_was_made_from_stays_on_the_card(known: Path, tmp_path: Path) -> None:
    facts = CardFacts(place="here", base="there", made="| steps | 4 |")
    (known / "README.md").write_text(model_card(PEA.load(known).config, facts))
    prepare(known, tmp_path / "out", "org/sd-zh", **LICENCE)
    card = (tmp_path / "out/README.md").read_text("utf-8")
    assert card.endswith("## How it was made\n\n| steps | 4 |\n") and "here" not in card.replace("there", "")


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({}, {}, "nobody said the adapter's licence.*--licence apache-2.0"),
        ({"languages": None}, LICENCE, "nobody said the adapter's languages.*--language zh"),
        (
            {"encoder": ENCODER_RECORD},
            LICENCE,
            "cannot find the adapter's text encoder.*got zh. Name it with --encoder",
        ),
        ({"encoder": None}, LICENCE, "cannot find the adapter's text encoder.*got nothing"),
        (
            {"base_model": {"name": "sd"}},
            LICENCE,
            "cannot find the adapter's diffusion model.*got sd. Name it with --base",
        ),
        ({}, LICENCE | {"base": "/models/sd"}, "diffusion model.*got /models/sd"),
        ({}, {"licence": "Apache 2.0"}, r"not one licence.*expected apache-2\.0; got Apache 2\.0"),
        ({}, {"licence": "openrail-m"}, r"not one licence.*creativeml-openrail-m"),
        ({}, {"licence": "mine"}, r"not one licence.*got mine\. .*--licence other"),
        ({"languages": ["Chinese"]}, LICENCE, "not the code of a language.*got Chinese. Give --language zh"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*does not say which text encoder")
def test_what_others_need_is_asked_for(
    known: Path, tmp_path: Path, change: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    config = json.loads((known / "config.json").read_text())
    (known / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=said) as caught:
        prepare(known, tmp_path / "out", "org/sd-zh", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_another_encoder_is_refused_before_it_is_named(
    known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_native_encoder(tmp_path / "other", seed=7)
    monkeypatch.setattr("pea.pipeline.publishing.local_folder", lambda place: other)
    with pytest.raises(CheckpointError, match="trained for another text encoder"):
        prepare(known, tmp_path / "out", "org/sd-zh", encoders=["org/other"], **LICENCE)


@pytest.mark.slow
def test_saved_again_it_is_the_same_and_its_card_runs(parts: Path, tmp_path: Path) -> None:
    pea = PEAPrompt.from_pretrained(parts / "adapter")
    pea.save_pretrained(tmp_path / "copy")
    again = PEAPrompt.from_pretrained(tmp_path / "copy")
    assert torch.equal(again("一只猫")["prompt_embeds"], pea("一只猫")["prompt_embeds"])
    facts = CardFacts(place=str(tmp_path / "copy"), base=str(parts / "teacher"))
    card = model_card(again.adapter.config, facts)
    assert yaml.safe_load(card.split("---\n")[1])["language"] == ["zh"] and "base_model:" not in card
    drawn = run_snippet(card)
    assert np.asarray(drawn).shape == (16, 16, 3)
    assert (tmp_path / "copy/README.md").read_text("utf-8").startswith("---\nlibrary_name: diffusers\n")


@pytest.mark.parametrize("name", [CARD, PICTURE, LORA_FILE])
def test_a_link_to_a_file_of_whoever_publishes_is_not_followed(
    name: str, known: Path, parts: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    save_file({"unet.a.lora_A.weight": torch.ones(1, 2)}, secret)
    if name == CARD:
        secret.write_text("a key")
    (known / name).unlink(missing_ok=True)
    (known / name).symlink_to(secret)
    with pytest.raises(CheckpointError, match=f"{name}: a link out of the folder is not followed") as caught:
        prepare(known, tmp_path / "out", "org/sd-zh", **LICENCE)
    assert "\n" not in str(caught.value)
    pea = PEAPrompt.from_pretrained(known, parts / "zh")
    if name != PICTURE:
        with pytest.raises(CheckpointError, match="a link out of the folder"):
            pea.save_pretrained(tmp_path / "saved")


def test_links_inside_the_hubs_cache_are_its_files(known: Path, tmp_path: Path) -> None:
    model = tmp_path / "models--org--sd-zh"
    snapshot = model / "snapshots" / SHA
    shutil.copytree(known, snapshot)
    (model / "blobs").mkdir()
    (snapshot / CARD).unlink(missing_ok=True)
    (model / "blobs/1").write_text("---\nlicense: mit\n---\nmine\n")
    (snapshot / CARD).symlink_to("../../blobs/1")
    prepare(snapshot, tmp_path / "out", "org/sd-zh", languages=["zh"])
    assert "mine" in (tmp_path / "out" / CARD).read_text()


def test_a_card_that_is_no_text_and_a_lora_that_is_none_are_refused(known: Path, tmp_path: Path) -> None:
    (known / CARD).write_bytes(b"\xff\xfe\0bad")
    with pytest.raises(CheckpointError, match="not a text in UTF-8"):
        prepare(known, tmp_path / "out", "org/sd-zh", **LICENCE)
    (known / CARD).unlink()
    (known / LORA_FILE).write_bytes(b"half")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        prepare(known, tmp_path / "out", "org/sd-zh", **LICENCE)
