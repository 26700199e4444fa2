"""An adapter with another diffusion model than its own."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from pea.cache.model_digest import sha256_folder
from pea.errors import CheckpointError
from pea.evaluation.base_model import check_base_model
from pea.models.adapter import PEA
from pea.models.tensor_files import digest_of
from tests.tiny_models import make_checkpoint


def adapter_for(checkpoint: Path, unet: str | None) -> PEA:
    base = {"name": checkpoint.name, "unet": unet}
    adapter: PEA = PEA(8, 16, None, hidden_size=8, base_model=base, prediction_type="epsilon")
    return adapter


@pytest.mark.slow
def test_a_fine_tune_is_drawn_with_and_named_once_and_another_kind_is_refused(tmp_path: Path) -> None:
    own = make_checkpoint(tmp_path / "own", "sd15")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for unet in (digest_of(own / "unet"), sha256_folder(own / "unet"), None):
            check_base_model(adapter_for(own, unet), own)
    adapter = adapter_for(own, digest_of(own / "unet"))
    other = make_checkpoint(tmp_path / "fine-tune", "sd15", seed=7)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            check_base_model(adapter, other)
    assert [str(each.message)[:60] for each in caught] == [
        "fine-tune: its UNet has other weights than that of own, for "
    ]
    settings = json.loads((other / "scheduler/scheduler_config.json").read_text())
    settings["prediction_type"] = "v_prediction"
    (other / "scheduler/scheduler_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="another prediction type"):
        check_base_model(adapter, other)
    with pytest.raises(CheckpointError, match="another shape"):
        check_base_model(adapter, make_checkpoint(tmp_path / "sdxl", "sdxl"))
