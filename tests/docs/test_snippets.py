"""The Python lines of the README and of the guide draw images, with the shipped models and their types as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pea.models.adapter import new_adapter
from pea.models.encoders.places import record_with_places
from pea.models.native import NativeEncoder
from pea.models.unet import unet_config
from tests.docs.pages import ROOT, blocks

WORLD = ROOT / "data_tools/world/checkpoints"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snippets") / "adapter"
    encoder = NativeEncoder.from_pretrained(WORLD / "chinese_clip")
    sizes: dict[str, Any] = {"hidden_size": 8, "num_layers": 1, "max_tokens": encoder.max_tokens, "seed": 0}
    adapter = new_adapter(unet_config(WORLD / "sdxl"), encoder.width, **sizes)
    adapter.register_to_config(encoder=record_with_places(encoder.record, [WORLD / "chinese_clip"]), languages=["zh"])
    adapter.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:the text encoder does not know")
@pytest.mark.parametrize(
    ("page", "number", "made"),
    [
        ("README.md", 0, "image"),
        ("docs/guides/use_an_adapter.md", 0, "image"),
        ("docs/guides/use_an_adapter.md", 1, "images"),
    ],
)
def test_lines_draw(page: str, number: int, made: str, adapter: Path) -> None:
    code = [block.text for block in blocks(ROOT / page) if block.language == "python"][number]
    for name in ("stabilityai/stable-diffusion-xl-base-1.0", "org/sdxl-zh", "runs/sdxl-zh/adapter"):
        code = code.replace(f'"{name}"', repr(str(WORLD / "sdxl" if name.startswith("stab") else adapter)))
    names: dict[str, Any] = {}
    exec(code, names)
    images = names[made] if made == "images" else [names[made]]
    assert len(images) == (2 if made == "images" else 1) and all(image.size == images[0].size for image in images)
    assert images[0].getextrema() != ((0, 0),) * 3, "a black image is of numbers that are none"
