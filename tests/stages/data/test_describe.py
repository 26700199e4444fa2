"""`pea data describe`: every image is counted once; the tables are what `corpora.described` reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from data_tools.corpus.captioned import ALL_CAPTIONS, units_of
from pea.config import DescribedConfig
from pea.corpus.tables import open_table
from pea.errors import CheckpointError, CorpusError
from stages.cli import main
from stages.data.describe import describe_unit
from tests.corpus.tar_files import captions, encoded, write_tar

Capture = pytest.CaptureFixture[str]


def picture_tar(path: Path) -> Path:
    """Images of several colours: described, captioned, damaged, without a caption."""
    colours = {"1": (255, 0, 0), "2": (0, 255, 0), "3": (0, 0, 255), "4": (9, 9, 9)}
    files = []
    for key, colour in colours.items():
        texts = {"zh": "猫"} if key != "2" else {"zh": "猫", "en": "a cat"}
        files += [(f"{key}.png", encoded(Image.new("RGB", (20, 16), colour))), (f"{key}.json", captions(**texts))]
    return write_tar(path, [*files, ("5.png", b"no image"), ("5.json", captions(zh="狗"))])


class ByColour:
    """Names the strongest colour, and says nothing of grey."""

    provenance = "description: by colour"

    def describe(self, images: Iterator[Image.Image]) -> Iterator[str]:
        for image in images:
            red, green, blue = image.getpixel((0, 0))  # type: ignore[misc]
            yield "" if red == green == blue else "red" if red else "green" if green else "blue"


def test_every_image_is_counted_once(tmp_path: Path) -> None:
    [unit] = units_of([str(picture_tar(tmp_path / "a.tar"))], 1)
    for again, texts in ((False, {"1": "red", "3": "blue"}), (True, {"1": "red", "2": "green", "3": "blue"})):
        rows, counts = describe_unit(unit, ALL_CAPTIONS, ByColour(), again=again)  # type: ignore[arg-type]
        assert {row["key"]: row["captions"]["described_en"] for row in rows} == texts
        assert counts["samples"] == 4 == counts["described"] + counts["empty"] + counts["present"]
        assert (counts["empty"], counts["unusable"], counts["present"]) == (1, 1, int(not again))
        assert rows[0]["provenance"] == {"described_en": "description: by colour"}
    (tmp_path / "t.jsonl").write_text('{"id": "1", "captions": {"zh": "x"}}\n')
    [table] = units_of([str(tmp_path / "t.jsonl")], 1)
    with pytest.raises(CorpusError, match="a table has no images"):
        describe_unit(table, ALL_CAPTIONS, ByColour(), again=False)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["blip", "florence2"])
def test_with_a_tiny_model_of_the_real_class(tmp_path: Path, capsys: Capture, kind: str) -> None:
    from data_tools.corpus.description import Describer, DescriptionSettings
    from tests import tiny_captioners

    model = getattr(tiny_captioners, f"make_{kind}")(tmp_path / kind)
    tar = picture_tar(tmp_path / "a.tar")
    command = [
        "data",
        "describe",
        str(tar),
        "--model",
        str(model),
        "--device",
        "cpu",
        "--max-tokens",
        "5",
        "--beams",
        "2",
    ]
    results = []
    for batch_size in ("1", "2"):
        out = tmp_path / f"out{batch_size}"
        assert main([*command, "--out", str(out), "--batch-size", batch_size, "--again"]) == 0
        assert "4 images: 4 described, 0 with an English caption" in capsys.readouterr().out
        rows = list(open_table(out).rows())
        results.append([row.get("captions.described_en") for row in rows])
    assert results[0] == results[1] and len(set(results[0])) > 1, "whatever the batch; and it depends on the image"
    tables = DescribedConfig(tables=(str(out),)).read_tables()
    assert tables is not None and tables.of_tar("a")["3"]["described_en"] == results[1][2]
    settings = json.loads((out / "settings.json").read_text())
    assert rows[0].get("provenance.described_en") == f"description: {kind} {settings['weights'][:12]}"
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "git"}))
    with pytest.raises(CheckpointError, match="not a captioning model"):
        Describer(str(model), DescriptionSettings())


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_models_that_need_torchvision_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    from data_tools.corpus.description import Describer, DescriptionSettings

    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(CheckpointError, match=rf"Qwen-VL .* need torchvision.*got {kind}.*`pea data captions TABLE"):
        Describer(str(tmp_path), DescriptionSettings())
