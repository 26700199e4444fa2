"""How often a judge reads off what was asked for: in painted images, after a VAE, and in what a teacher draws.

    python -m data_tools.world.readings --world things --judge runs/things/judge --teacher runs/things/sd15

The images are of held-out combinations. A VAE that the judge can't read after limits its teacher.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL

from data_tools.world.captions import caption
from data_tools.world.corpora import WORLDS
from data_tools.world.judge import Judge
from data_tools.world.scenes import Scene, culture_scenes, general_scenes
from data_tools.world.train_images import paint_all, to_tensor
from data_tools.world.worlds import World
from pea.errors import PeaError
from pea.evaluation.drawing import load_pipeline

_BATCH_SIZE = 32


def read_attributes(judge: Judge, images: np.ndarray, scenes: list[Scene]) -> dict[str, float]:
    """Attribute -> share of the uint8 images `[N, H, W, 3]` in which the judge reads the scene's value."""
    readings, wanted = judge.read(images), [scene.attributes() for scene in scenes]
    return {
        name: float(np.mean([readings[name][row] == values[name] for row, values in enumerate(wanted)]))
        for name in wanted[0]
    }


@torch.inference_mode()
def rebuild(vae: AutoencoderKL, images: np.ndarray) -> np.ndarray:
    """What the VAE makes of the uint8 images `[N, H, W, 3]`, the same type and shape."""
    batches = to_tensor(images).split(_BATCH_SIZE)
    pixels = torch.cat([vae.decode(vae.encode(batch).latent_dist.mean).sample for batch in batches])
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def draw(pipe: Any, captions: list[str], num_inference_steps: int) -> np.ndarray:
    """What a pipeline draws for the captions with guidance 5, uint8 `[N, H, W, 3]`."""
    generator, images = torch.Generator().manual_seed(0), []
    for start in range(0, len(captions), _BATCH_SIZE):
        batch = captions[start : start + _BATCH_SIZE]
        drawn = pipe(
            batch,
            num_inference_steps=num_inference_steps,
            guidance_scale=5.0,
            generator=generator,
            output_type="np",
        )
        images.append((drawn.images * 255).round().astype(np.uint8))
    return np.concatenate(images)


def report(world: World, judge: Judge, pipe: Any, num_images: int, num_inference_steps: int) -> list[str]:
    """A line for each kind of scene and each way of making its images."""
    vocabulary, lines = world.vocabulary, []
    scenes = {
        "general": general_scenes(num_images, 1, held_out=True, vocabulary=vocabulary),
        "culture": culture_scenes(vocabulary.all_concepts, num_images, 3, held_out=True, vocabulary=vocabulary),
    }
    for kind, chosen in scenes.items():
        painted = paint_all(chosen, world)
        captions = [caption(scene, "en", world.languages) for scene in chosen]
        made = {"painted": painted, "rebuilt": rebuild(pipe.vae, painted)}
        made["drawn"] = draw(pipe, captions, num_inference_steps)
        for way, images in made.items():
            shares = read_attributes(judge, images, chosen)
            shares["mean"] = float(np.mean(list(shares.values())))
            lines.append(f"{kind} {way}: " + ", ".join(f"{name} {share:.3f}" for name, share in shares.items()))
    return lines


def main(argv: list[str] | None = None) -> int:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="How often a judge reads off what was asked for.")
    parser.add_argument("--world", choices=tuple(WORLDS), default="small", help="what is painted (default: small)")
    parser.add_argument("--judge", type=Path, required=True, help="folder of the judge")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of the teacher's pipeline")
    parser.add_argument("--images", type=int, default=128, help="images of each kind (default: 128)")
    parser.add_argument("--steps", type=int, default=25, help="denoising steps (default: 25)")
    arguments = parser.parse_args(argv)
    try:
        judge, pipe = Judge.load(arguments.judge), load_pipeline(arguments.teacher)
    except PeaError as error:
        print(f"pea: error: {error}", file=sys.stderr)
        return 2
    print("\n".join(report(WORLDS[arguments.world], judge, pipe, arguments.images, arguments.steps)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
