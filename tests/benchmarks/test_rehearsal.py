"""The dress rehearsal runs on tiny models, and its sizes are those of the published ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file

from stages.plan import PRESETS
from tests.benchmarks import real_models, rehearsal


def test_weights_that_lie_in_mapped_files_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "__init__", torch.nn.Module.__init__)
    rehearsal.watch_modules()
    size, before = 4 << 20, rehearsal.mapped_bytes()
    save_file({"a": torch.ones(size // 4), "b": torch.ones(size // 4)}, tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        holders = torch.nn.Module(), torch.nn.Module()
        holders[0].register_buffer("kept", file.get_tensor("a"))
        holders[0].register_buffer("converted", file.get_tensor("b").half())
        holders[1].register_buffer("again", holders[0].kept)
    assert rehearsal.mapped_bytes() - before == size


@pytest.mark.slow
def test_configurations_have_as_many_parameters_as_the_published_models() -> None:
    published = {"sd15": 859_520_964, "sdxl": 2_567_463_684, "ssd1b": 1_331_334_404}
    for name, count in published.items():
        sizes = json.loads(PRESETS.read_text("utf-8"))["sd15" if name == "sd15" else "sdxl"]["unet"]
        with torch.device("meta"):
            unet = UNet2DConditionModel(**sizes | (real_models._SSD_1B if name == "ssd1b" else {}))
        assert sum(each.numel() for each in unet.parameters()) == count


@pytest.mark.slow
def test_every_work_is_measured_beside_its_plan(tmp_path: Path) -> None:
    told: list[set[str]] = []
    found = rehearsal.rehearse(
        "tiny-sd15", tmp_path / "rehearsal", written=lambda found: told.append(set(found["measured"]))
    )
    assert [len(each) for each in told] == [1, 2, 3, 4], "nothing is lost when a later work fails"
    assert set(found["measured"]) == set(rehearsal.KINDS) <= set(found["planned"]["memory"])
    assert all(each["seconds"] > 0 for each in found["measured"].values())
    assert 0.5 < found["stored_bytes"] / found["planned"]["total_bytes"] < 2, "small stores are mostly overhead"
    assert "| tiny-sd15 | training |" in rehearsal.report({"tiny-sd15": found})
    again = rehearsal.rehearse("tiny-sd15", tmp_path / "rehearsal", ["drawing"])
    assert set(again["measured"]) == {"drawing"}, "models, cache and adapter are found again"


def test_what_is_measured_anew_replaces_what_was_found_before() -> None:
    former = {"stored_bytes": 7, "measured": {"caching": {"seconds": 1}, "drawing": {"seconds": 2}}}
    found = rehearsal.completed(former, {"planned": {}, "measured": {"drawing": {"seconds": 3}}})
    assert found["measured"] == {"caching": {"seconds": 1}, "drawing": {"seconds": 3}}
    assert found["stored_bytes"] == 7
