"""Noise is not stored but made again from its key; a record whose noise would be another one is never trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pea.batches import dataset
from pea.config import Config
from pea.errors import ShardDamagedError
from stages.training.setup import prepare


def test_a_noise_that_is_not_the_teachers_is_refused(tiny_sdxl: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepare(tiny_sdxl, torch.device("cpu")).data
    batch = data.batch(0)
    assert batch.num_parallel
    real = dataset.noise_batch

    def last_bit_differs(*arguments: object) -> np.ndarray:
        noise = np.array(real(*arguments))  # type: ignore[arg-type]
        noise.view(np.uint32)[0, 0, 0, 0] ^= 1
        return noise

    monkeypatch.setattr(dataset, "noise_batch", last_bit_differs)
    with pytest.raises(ShardDamagedError, match=r"not the one that the teacher saw; expected") as info:
        data.batch(0)
    assert batch.names[0] in str(info.value)
