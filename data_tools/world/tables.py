"""What studies want beside a world's corpora: captions without their images, and descriptions of culture images.

    python -m data_tools.world.tables --corpora runs/described/corpora

`captions.jsonl` holds the captions of the parallel corpus and nothing of its images. `described-LANGUAGE/` says in
English what each image of that culture corpus shows; `described-wrong-LANGUAGE/` says so of two thirds of them, and of
the others, drawn at random, what an image of another concept shows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.world.captions import caption
from data_tools.world.scenes import Scene
from pea.errors import CorpusError, PeaError
from pea.storage.durable import write_text

_SEED = 0
_DESCRIPTION = "described_en"
Document = tuple[str, str, Mapping[str, Any]]
"""Tar, key, and the json of a sample."""


def write_tables(corpora: Path) -> list[str]:
    """Write every table that these corpora allow; returns their names.

    Raises:
        CorpusError: there is no parallel corpus.
    """
    rows = [{"id": key, "captions": document["captions"]} for _, key, document in _documents(corpora / "parallel")]
    if not rows:
        raise CorpusError("no corpus here", where=corpora / "parallel", expected="what data_tools.world.corpora writes")
    written = ["captions.jsonl"]
    _write(corpora / "captions.jsonl", rows)
    for folder in sorted(corpora.glob("culture-*")):
        documents = list(_documents(folder))
        scenes = [_scene(document, number) for number, (_, _, document) in enumerate(documents)]
        for name, texts in (("described", _right(scenes)), ("described-wrong", _partly_wrong(scenes))):
            table = folder.name.replace("culture", name)
            _write_by_tar(corpora / table, documents, texts)
            written.append(table)
    return written


def _documents(folder: Path) -> Iterator[Document]:
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.name.endswith(".json") else None
                if content is not None:
                    yield path.stem, member.name.removesuffix(".json"), json.loads(content.read())


def _scene(document: Mapping[str, Any], number: int) -> Scene:
    """The number of the image chooses among the phrasings."""
    return Scene(document["attributes"]["concept"], document["attributes"]["background"], seed=number)


def _right(scenes: Sequence[Scene]) -> list[str]:
    return [caption(scene, "en") for scene in scenes]


def _partly_wrong(scenes: Sequence[Scene]) -> list[str]:
    """A third of them are each described as an image of another concept, with its background."""
    rng, texts = np.random.default_rng(_SEED), _right(scenes)
    for number in rng.permutation(len(scenes))[: len(scenes) // 3]:
        others = [other for other, scene in enumerate(scenes) if scene.shape != scenes[number].shape]
        texts[number] = caption(scenes[int(rng.choice(others))], "en")
    return texts


def _write_by_tar(folder: Path, documents: Sequence[Document], texts: Sequence[str]) -> None:
    by_tar: dict[str, list[dict[str, Any]]] = {}
    for (tar, key, _), text in zip(documents, texts, strict=True):
        by_tar.setdefault(tar, []).append({"tar": tar, "key": key, "captions": {_DESCRIPTION: text}})
    folder.mkdir(exist_ok=True)
    for tar, rows in by_tar.items():
        _write(folder / f"{tar}.jsonl", rows)


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def main(argv: list[str] | None = None) -> int:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Write tables beside a small world's corpora.")
    parser.add_argument("--corpora", type=Path, required=True, help="folder that data_tools.world.corpora has written")
    try:
        folder = parser.parse_args(argv).corpora
        print(f"{folder}: wrote {', '.join(write_tables(folder))}")
    except PeaError as error:
        print(f"pea: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
