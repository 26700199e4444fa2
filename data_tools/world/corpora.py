"""Write a world's corpora: WebDataset tars to train on, and held-out prompts to be judged by.

    python -m data_tools.world.corpora --out runs/demo/corpora
    python -m data_tools.world.corpora --world things --out runs/things/corpora

`parallel/*.tar` holds general images with captions in all six languages, `culture-<language>/*.tar` images of that
language's culture concepts with their native caption, and `prompts/{general,culture-<language>}.jsonl` attribute
combinations that no training image has. Settings are chosen on others, `prompts/validation-*.jsonl`: general
combinations that no image of this corpus has, and culture combinations that it has, with other phrasings and noise.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from rich.progress import track

from data_tools.world.captions import captions, translations
from data_tools.world.languages import NATIVE_LANGUAGES
from data_tools.world.scenes import Scene, culture_scenes, general_scenes, unseen_general_scenes
from data_tools.world.things.world import THINGS
from data_tools.world.worlds import SMALL_WORLD, World
from pea.errors import LocationError, PeaError
from pea.storage import Location

SAMPLES_PER_TAR = 512
SAMPLES_PER_CONCEPT = 100
NUM_PROMPTS = 160
_BLOCK_BYTES = 4 << 20
WORLDS = {"small": SMALL_WORLD, "things": THINGS}


def write_corpora(
    folder: Path | Location,
    *,
    num_parallel: int,
    languages: Iterable[str],
    seed: int,
    per_concept: int = SAMPLES_PER_CONCEPT,
    world: World = SMALL_WORLD,
) -> list[str]:
    """Write every corpus and prompt list that is not there yet; returns the names of those written."""
    folder, written, vocabulary = Location.parse(folder), [], world.vocabulary
    if _write_corpus(folder / "parallel", general_scenes(num_parallel, seed, vocabulary=vocabulary), world):
        written.append("parallel")
    prompts = general_scenes(NUM_PROMPTS, seed + 1, held_out=True, vocabulary=vocabulary)
    if _write_prompts(folder / "prompts/general.jsonl", prompts, world):
        written.append("prompts/general")
    unseen = unseen_general_scenes(NUM_PROMPTS, num_parallel, seed, vocabulary)
    if unseen and _write_prompts(folder / "prompts/validation-general.jsonl", unseen, world):
        written.append("prompts/validation-general")
    for language in languages:
        concepts = vocabulary.concepts[language]
        scenes = culture_scenes(concepts, per_concept * len(concepts), seed + 2, vocabulary=vocabulary)
        if _write_corpus(folder / f"culture-{language}", scenes, world, only=language):
            written.append(f"culture-{language}")
        prompts = culture_scenes(concepts, NUM_PROMPTS, seed + 3, held_out=True, vocabulary=vocabulary)
        if _write_prompts(folder / f"prompts/culture-{language}.jsonl", prompts, world):
            written.append(f"prompts/culture-{language}")
        scenes = culture_scenes(concepts, NUM_PROMPTS, seed + 4, vocabulary=vocabulary)
        if _write_prompts(folder / f"prompts/validation-culture-{language}.jsonl", scenes, world):
            written.append(f"prompts/validation-culture-{language}")
    return written


def _write_corpus(folder: Location, scenes: list[Scene], world: World, only: str | None = None) -> bool:
    """Write tars, with the captions in one language `only` if given; False if all are there."""
    starts = range(0, len(scenes), SAMPLES_PER_TAR)
    paths = [folder / f"{folder.name}-{number:05d}.tar" for number in range(len(starts))]
    if all(path.exists() for path in paths):
        return False
    with ProcessPoolExecutor(min(len(paths), os.cpu_count() or 1), get_context("spawn")) as pool:
        painted = [
            pool.submit(_write_tar, path, scenes[start : start + SAMPLES_PER_TAR], start, world, only)
            for path, start in zip(paths, starts, strict=True)
        ]
        for tar in track(painted, description=f"painting {folder.name}"):
            tar.result()
    return True


def _write_tar(path: Location, scenes: list[Scene], start: int, world: World, only: str | None) -> None:
    """Byte-for-byte the same tar for the same scenes; published whole or not at all."""
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for number, scene in enumerate(scenes, start):
                texts = captions(scene, world.languages)
                record = {"captions": {only: texts[only]} if only else texts, "attributes": scene.attributes()}
                pixels = io.BytesIO()
                world.paint(scene).save(pixels, "PNG")
                _add(tar, f"{number:06d}.png", pixels.getvalue())
                _add(tar, f"{number:06d}.json", json.dumps(record, ensure_ascii=False).encode())
        file.seek(0)
        path.write_pieces(iter(lambda: file.read(_BLOCK_BYTES), b""))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _write_prompts(path: Location, scenes: list[Scene], world: World) -> bool:
    if path.exists():
        return False
    lines = [
        json.dumps(
            {
                "id": f"{path.stem}-{number:04d}",
                "captions": captions(scene, world.languages) | translations(scene, world.languages),
                "attributes": scene.attributes(),
            },
            ensure_ascii=False,
        )
        for number, scene in enumerate(scenes)
    ]
    path.write_text("\n".join(lines) + "\n")
    return True


def _place(text: str) -> Location:
    """A path or URL, as the type of an argument."""
    try:
        return Location.parse(text)
    except LocationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(argv: list[str] | None = None) -> int:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Write a world's corpora and held-out prompts.")
    parser.add_argument("--out", type=_place, required=True, help="folder to write to, a path or a URL")
    parser.add_argument("--world", choices=tuple(WORLDS), default="small", help="what is painted (default: small)")
    parser.add_argument("--samples", type=int, default=4096, help="samples of the parallel corpus (default: 4096)")
    parser.add_argument(
        "--languages",
        nargs="+",
        choices=NATIVE_LANGUAGES,
        default=["zh"],
        help="languages with a culture corpus",
    )
    parser.add_argument("--seed", type=int, default=1000, help="seed of every choice (default: 1000)")
    arguments = parser.parse_args(argv)
    try:
        written = write_corpora(
            arguments.out,
            num_parallel=arguments.samples,
            languages=arguments.languages,
            seed=arguments.seed,
            world=WORLDS[arguments.world],
        )
    except PeaError as error:
        print(f"pea: error: {error}", file=sys.stderr)
        return 2
    print(
        f"{arguments.out}: wrote {', '.join(written)}" if written else f"{arguments.out}: everything is there already"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
