"""Training the judge, on painted images alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data_tools.world.judge import Judge
from data_tools.world.scenes import Scene
from data_tools.world.train_images import every_scene, paint_all, to_tensor
from data_tools.world.training import Report, cosine_schedule, minibatches, save_model, update
from data_tools.world.worlds import SMALL_WORLD, World


def train_judge(folder: Path, steps: int, seed: int, report: Report, world: World = SMALL_WORLD) -> float:
    """Train the judge on painted images; returns its mean accuracy on fresh ones."""
    torch.manual_seed(seed)
    attributes = world.vocabulary.attributes
    num_per_concept = 200 if world is SMALL_WORLD else 80
    scenes = every_scene(16_000, num_per_concept, seed, world.vocabulary)
    images = torch.from_numpy(paint_all(scenes, world))
    labels = _labels(scenes, attributes)
    named = None if world is SMALL_WORLD else {name: list(values) for name, values in attributes.items()}
    judge = Judge(attributes=named, image_size_px=world.image_size_px)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = cosine_schedule(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for step, (batch, truth) in zip(range(steps), minibatches((images, labels), 64, seed), strict=False):
        logits = judge(_weather(to_tensor(batch.numpy()), generator))
        losses = [functional.cross_entropy(logits[n], truth[:, i], ignore_index=-1) for i, n in enumerate(attributes)]
        loss = torch.stack([loss for loss in losses if torch.isfinite(loss)]).sum()
        update(judge, optimizer, schedule, loss)
        report(step, steps, loss)
    save_model(judge, folder)
    return judge_accuracy(Judge.load(folder), seed + 100, world)


def judge_accuracy(judge: Judge, seed: int, world: World = SMALL_WORLD) -> float:
    """Mean accuracy over attributes and fresh painted scenes of every kind."""
    scenes = every_scene(900, 20, seed, world.vocabulary)
    readings = judge.read(paint_all(scenes, world))
    hits = [
        readings[_head(name)][row] == value for row, s in enumerate(scenes) for name, value in s.attributes().items()
    ]
    return float(np.mean(hits))


def _head(attribute: str) -> str:
    return "shape" if attribute == "concept" else attribute


def _labels(scenes: list[Scene], attributes: Mapping[str, tuple[str, ...]]) -> Tensor:
    """Class indices `[N, attributes]`, -1 where a scene does not have the attribute."""
    rows = []
    for scene in scenes:
        truth = {_head(name): value for name, value in scene.attributes().items()}
        rows.append([values.index(truth[name]) if name in truth else -1 for name, values in attributes.items()])
    return torch.tensor(rows)


def _weather(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, noise and contrast that a generated image may have and a painted one lacks."""
    noise = (
        torch.randn(images.shape, generator=generator) * 0.12 * torch.rand((len(images), 1, 1, 1), generator=generator)
    )
    blurred = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    mix = torch.rand((len(images), 1, 1, 1), generator=generator)
    gain = 1 + 0.2 * (torch.rand((len(images), 1, 1, 1), generator=generator) - 0.5)
    return (mix * images + (1 - mix) * blurred) * gain + noise
