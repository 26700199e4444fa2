"""A complete tiny setup on disk: checkpoint, native encoder, corpora, configuration, and caches."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pea.cache import Cache, cache_identity
from pea.collect.collector import Collector, Task
from pea.config import AttentionConfig, Config
from tests.tiny_models import Shape, make_checkpoint, make_native_encoder

_NATIVE = "一只猫狗红球大小在上下雪草"
_ENGLISH = ("a cat", "a red dog", "big ball", "small cat", "a dog in snow", "green grass")
TRAIN = {
    "steps": 4,
    "batch_size": 8,
    "culture_fraction": 0.25,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "save_every_steps": 2,
    "log_every_steps": 1,
    "device": "cpu",
    "phases": [],
}


def make_setup(
    folder: Path,
    shape: Shape = "sd15",
    *,
    sketch: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    prediction_type: str = "epsilon",
    num_samples: int = 12,
    languages: tuple[str, ...] = ("en", "zh"),
    languages_of_last_tar: tuple[str, ...] | None = None,
) -> Config:
    """Write everything and cache it; images fall into two buckets, and a third of the captions is dropped."""
    folder.mkdir(parents=True, exist_ok=True)
    make_checkpoint(folder / "teacher", shape, prediction_type)
    make_native_encoder(folder / "zh")
    write_tar(folder / "parallel-0.tar", range(num_samples), languages)
    write_tar(folder / "parallel-1.tar", range(num_samples, num_samples + 4), languages_of_last_tar or languages)
    write_tar(folder / "culture.tar", range(100, 105), ("zh",))
    raw = {
        "run_dir": str(folder / "run"),
        "teacher": {"checkpoint": str(folder / "teacher")},
        "corpora": {
            "parallel": {"tars": [str(folder / "parallel-*.tar")]},
            "culture": {"tars": [str(folder / "culture.tar")], "source_language": "zh"},
        },
        "cache": {
            "draws_per_sample": 3,
            "caption_drop_rate": 0.3,
            "buckets": [[16, 16], [16, 24]],
            "sketch": sketch or {"kind": "exact", "dtype": "float32"},
            "noise_pred_dtype": "float32",
        },
        "student": {"encoder": str(folder / "zh"), "adapter": {"hidden_size": 16}},
        "train": TRAIN | (train or {}),
    }
    config = Config.model_validate_json(json.dumps(raw))
    fill_cache(config, "parallel", folder)
    fill_cache(config, "culture", folder)
    return config


def fill_cache(config: Config, corpus: Any, folder: Path, device: torch.device | str = "cpu") -> Cache:
    """Cache one corpus, whose tars are in `folder`, in this process."""
    directory = config.cache_dir(corpus)
    cache = Cache.create_or_resume(directory, cache_identity(config, corpus))
    collector = Collector(config, corpus, torch.device(device))
    for part in cache.plan():
        for _ in collector.collect(cache, Task(part, folder / f"{part.tar}.tar")):
            pass
    return Cache.open(directory)


def with_queries(setup: Config, folder: Path, **attention: Any) -> Config:
    """The same setup with caches in `folder` that hold queries."""
    cache = setup.cache.model_copy(update={"attention": AttentionConfig(**{"num_queries": 4, **attention})})
    config = setup.model_copy(update={"run_dir": folder, "cache": cache})
    source = Path(setup.corpora.parallel.tars[0]).parent
    fill_cache(config, "parallel", source)
    fill_cache(config, "culture", source)
    return config


def write_tar(path: Path, numbers: range, languages: tuple[str, ...]) -> None:
    """Random images, every third one in landscape format."""
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            rng = np.random.default_rng(number)
            width = 24 if number % 3 == 2 else 16
            pixels = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (16, width, 3), dtype=np.uint8)).save(pixels, "PNG")
            native = "".join(rng.choice(list(_NATIVE), size=4))
            captions = {"zh": native, "ja": native[::-1] + "い", "en": _ENGLISH[number % len(_ENGLISH)]}
            record = {"captions": {language: captions[language] for language in languages}}
            for name, content in ((f"{number:04d}.png", pixels.getvalue()), (f"{number:04d}.json", json.dumps(record))):
                data = content.encode() if isinstance(content, str) else content
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
