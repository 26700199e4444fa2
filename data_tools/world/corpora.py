"""Write the small world's corpora: WebDataset tars to train on, and held-out prompts to be judged by.

    python -m data_tools.world.corpora --out runs/demo/corpora

`parallel/*.tar` holds general images with captions in all six languages, `culture-<language>/*.tar` images of that
language's culture concepts with their native caption, and `prompts/{general,culture-<language>}.jsonl` attribute
combinations that no training image has. Settings are chosen on others, `prompts/validation-*.jsonl`: general
combinations that no image of this corpus has, and culture combinations that it has, with other phrasings and noise.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rich.progress import track

from data_tools.world.captions import captions, translations
from data_tools.world.languages import NATIVE_LANGUAGES
from data_tools.world.paint import paint
from data_tools.world.scenes import CONCEPTS, Scene, culture_scenes, general_scenes, unseen_general_scenes
from pea.errors import LocationError, PeaError
from pea.storage import Location

SAMPLES_PER_TAR = 512
SAMPLES_PER_CONCEPT = 100
NUM_PROMPTS = 160
_BLOCK_BYTES = 4 << 20


def write_corpora(
    folder: Path | Location,
    *,
    num_parallel: int,
    languages: Iterable[str],
    seed: int,
    per_concept: int = SAMPLES_PER_CONCEPT,
) -> list[str]:
    """Write every corpus and prompt list that is not there yet; returns the names of those written."""
    folder, written = Location.parse(folder), []
    if _write_corpus(folder / "parallel", general_scenes(num_parallel, seed)):
        written.append("parallel")
    if _write_prompts(folder / "prompts/general.jsonl", general_scenes(NUM_PROMPTS, seed + 1, held_out=True)):
        written.append("prompts/general")
    unseen = unseen_general_scenes(NUM_PROMPTS, num_parallel, seed)
    if unseen and _write_prompts(folder / "prompts/validation-general.jsonl", unseen):
        written.append("prompts/validation-general")
    for language in languages:
        concepts = CONCEPTS[language]
        scenes = culture_scenes(concepts, per_concept * len(concepts), seed + 2)
        if _write_corpus(folder / f"culture-{language}", scenes, only=language):
            written.append(f"culture-{language}")
        prompts = culture_scenes(concepts, NUM_PROMPTS, seed + 3, held_out=True)
        if _write_prompts(folder / f"prompts/culture-{language}.jsonl", prompts):
            written.append(f"prompts/culture-{language}")
        scenes = culture_scenes(concepts, NUM_PROMPTS, seed + 4)
        if _write_prompts(folder / f"prompts/validation-culture-{language}.jsonl", scenes):
            written.append(f"prompts/validation-culture-{language}")
    return written


def _write_corpus(folder: Location, scenes: list[Scene], only: str | None = None) -> bool:
    """Write tars, with the captions in one language `only` if given; False if all are there."""
    starts = range(0, len(scenes), SAMPLES_PER_TAR)
    paths = [folder / f"{folder.name}-{number:05d}.tar" for number in range(len(starts))]
    if all(path.exists() for path in paths):
        return False
    for path, start in track(list(zip(paths, starts, strict=True)), description=f"painting {folder.name}"):
        _write_tar(path, scenes[start : start + SAMPLES_PER_TAR], start, only)
    return True


def _write_tar(path: Location, scenes: list[Scene], start: int, only: str | None) -> None:
    """Byte-for-byte the same tar for the same scenes; published whole or not at all."""
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for number, scene in enumerate(scenes, start):
                texts = captions(scene)
                record = {"captions": {only: texts[only]} if only else texts, "attributes": scene.attributes()}
                pixels = io.BytesIO()
                paint(scene).save(pixels, "PNG")
                _add(tar, f"{number:06d}.png", pixels.getvalue())
                _add(tar, f"{number:06d}.json", json.dumps(record, ensure_ascii=False).encode())
        file.seek(0)
        path.write_pieces(iter(lambda: file.read(_BLOCK_BYTES), b""))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _write_prompts(path: Location, scenes: list[Scene]) -> bool:
    if path.exists():
        return False
    lines = [
        json.dumps(
            {
                "id": f"{path.stem}-{number:04d}",
                "captions": captions(scene) | translations(scene),
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
    parser = argparse.ArgumentParser(description="Write the small world's corpora and held-out prompts.")
    parser.add_argument("--out", type=_place, required=True, help="folder to write to, a path or a URL")
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
            arguments.out, num_parallel=arguments.samples, languages=arguments.languages, seed=arguments.seed
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
