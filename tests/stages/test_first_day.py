"""First days, as new users have them: from what they own to a trained adapter, with the product's commands alone."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from stages.cli import main
from tests.corpus.tar_files import write_tar
from tests.tiny_models import make_checkpoint, make_native_encoder
from tests.tiny_setup import TRAIN

pytestmark = pytest.mark.slow

KINDS = (("jpg", "JPEG"), ("JPG", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF"), ("gif", "GIF"))
PATIENCE_S = 600


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_checkpoint(folder / "teacher", "sdxl")
    make_native_encoder(folder / "encoder")
    return folder


def _photo(number: int, kind: str) -> bytes:
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 255, (16 + 4 * (number % 3), 16 + 8 * (number % 2), 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK" if number % 7 == 3 and kind == "JPEG" else "RGB").save(buffer, kind)
    return buffer.getvalue()


def _photos(folder: Path, count: int) -> Iterator[str]:
    """Photos of mixed kinds in two folders; their paths."""
    for number in range(count):
        ending, kind = KINDS[number % len(KINDS)]
        path = folder / f"{2000 + number % 2}" / f"Foto {number}é.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_photo(number, kind))
        yield path.relative_to(folder).as_posix()


def _letters(number: int) -> str:
    """A text that the tiny tokenizers tell from others: they know letters alone."""
    return f"{chr(97 + number % 26)} {chr(97 + number * 7 % 26)}"


def _native(number: int) -> str:
    return "一只猫狗红球大小在上下雪草"[number % 9 : number % 9 + 4]


def _pea(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def _fill_cache(config: Path) -> None:
    """`pea cache` in a process of its own, which Ray ends with."""
    command = [sys.executable, "-m", "stages.cli", "cache", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def _config(folder: Path, models: Path, corpora: dict[str, object], languages: list[str], **train: object) -> Path:
    raw = {
        "run_dir": str(folder / "run"),
        "teacher": {"checkpoint": str(models / "teacher")},
        "corpora": corpora,
        "cache": {
            "draws_per_sample": 2,
            "buckets": [[16, 16], [16, 24]],
            "run": {"num_actors": 1, "device": "cpu"},
        },
        "student": {"encoder": str(models / "encoder"), "language": languages, "adapter": {"hidden_size": 16}},
        "train": {**TRAIN, **train},
    }
    path = folder / "setup.yaml"
    path.write_text(yaml.safe_dump(raw), "utf-8")
    return path


def _summary(folder: Path) -> dict[str, object]:
    return json.loads((folder / "run/training/train_summary.json").read_text("utf-8"))


def test_a_folder_of_photos_with_a_csv_and_one_with_native_captions(tmp_path: Path, models: Path) -> None:
    names = list(_photos(tmp_path / "photos", 2_000))
    with (tmp_path / "photos/Bildtexte.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["Datei", "English", "Chinese"])
        for number, name in enumerate(names):
            writer.writerow([name, f"{_letters(number)};\na cat", "" if number % 10 == 9 else _native(number)])
    for number, name in enumerate(_photos(tmp_path / "native", 40)):
        (tmp_path / "native" / name).with_suffix(".txt").write_text(_native(number), "utf-8")
    corpora = {}
    for corpus, source, words in (("parallel", "photos", ()), ("culture", "native", ("--language", "zh"))):
        _pea("data", "pack", tmp_path / source, "--out", tmp_path / "corpora" / corpus, "--rows-per-tar", 600, *words)
        _pea("data", "check", tmp_path / "corpora" / corpus / "*.tar")
        corpora[corpus] = {"tars": [str(tmp_path / "corpora" / corpus / "*.tar")]}
    corpora["culture"]["source_language"] = "zh"
    config = _config(tmp_path, models, corpora, ["zh"])
    _fill_cache(config)
    _pea("train", "--config", config)
    captions = _summary(tmp_path)["captions"]
    assert captions == {
        "parallel": {"samples": 2_000, "with_caption": 1_800, "zh": 1_800},
        "culture": {"samples": 40, "with_caption": 40, "zh": 40},
    }


LANGUAGES = ("de", "fr", "it", "es")


def _img2dataset(folder: Path, count: int) -> None:
    """Two tars as img2dataset writes them, and its Parquet files and counts beside them."""
    folder.mkdir()
    for tar in range(2):
        files, rows = [], []
        for number in range(count):
            key = f"{tar:05d}{number:04d}"
            row = {
                "url": f"http://x/{key}",
                "caption": f"{_letters(number)} a red dog",
                "key": key,
                "status": "success",
            }
            row |= {"original_width": 640, "original_height": 480}
            rows.append(row)
            files += [(f"{key}.jpg", _photo(tar * count + number, "JPEG")), (f"{key}.json", json.dumps(row).encode())]
            files.append((f"{key}.txt", row["caption"].encode()))
        write_tar(folder / f"{tar:05d}.tar", files)
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{tar:05d}.parquet")
        (folder / f"{tar:05d}_stats.json").write_text(json.dumps({"successes": count}))


def test_img2dataset_and_a_table_with_one_language_an_image(tmp_path: Path, models: Path) -> None:
    _img2dataset(tmp_path / "laion", 24)
    rows = [
        {"URL": f"http://x/{tar:05d}{number:04d}", "TEXT": _letters(number + 5), "LANGUAGE": LANGUAGES[number % 4]}
        for tar in range(2)
        for number in range(20)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "laion-multi.parquet")
    _pea("data", "pack", tmp_path / "laion", "--out", tmp_path / "tars", "--language", "en")
    tars = f"laion::{tmp_path}/tars/*.tar"
    config = _config(tmp_path, models, {"parallel": {"tars": [tars]}}, list(LANGUAGES), culture_fraction=0.0)
    _fill_cache(config)
    table = tmp_path / "laion-multi.parquet"
    _pea("data", "captions", table, "--corpus", tars, "--by", "URL=url", "--out", tmp_path / "captions")
    beside = f"corpora.parallel.caption_tables=[{tmp_path}/captions]"
    _pea("train", "--config", config, beside)
    expected = {"samples": 48, "with_caption": 40, **dict.fromkeys(LANGUAGES, 10)}
    assert _summary(tmp_path)["captions"] == {"parallel": expected}


def test_a_text_file_with_two_columns(tmp_path: Path, models: Path) -> None:
    things = ("cat", "dog", "ball", "grass", "red dog")
    native = "一只猫狗红球大小在上下雪草"
    lines = [f"{things[n % 5]} number {n}\t{native[n % 13]}{native[n * 5 % 13]}" for n in range(60)]
    (tmp_path / "captions.tsv").write_text("\n".join(["en\tzh", *lines, "no translation", ""]), "utf-8-sig")
    corpora = {"parallel": {"texts": str(tmp_path / "captions.tsv"), "drawing": {"steps": 3, "rows_per_part": 32}}}
    config = _config(tmp_path, models, corpora, ["zh"])
    _pea("plan", "--config", config)
    raw = yaml.safe_load(config.read_text("utf-8"))
    raw["cache"]["max_dropped_fraction"] = 0.05
    config.write_text(yaml.safe_dump(raw), "utf-8")
    _fill_cache(config)
    _pea("inspect", "check", tmp_path / "run")
    _pea("inspect", "ls", tmp_path / "run", "--dropped")
    _pea("train", "--config", config)
    assert _summary(tmp_path)["captions"] == {"parallel": {"samples": 60, "with_caption": 60, "zh": 60}}
    assert _summary(tmp_path)["records"] == 120
