"""Photos and a CSV to tars: `pea data pack` against a plain loop of webdataset's `ShardWriter` over the same files.

    python -m tests.benchmarks.bench_packing                    (2,000 photos)
    python -m tests.benchmarks.bench_packing --full             (100,000 photos of 60 KB: 6 GB, twice)

The plain loop reads the CSV with the standard library, and writes each file and a json: no look at what it copies, no
digest, no restart. Each round has a process of its own. The growth of memory is from a quarter of the way to the end.
"""

from __future__ import annotations

import csv
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.benchmarks import harness

_PHOTO_BYTES = 60_000
_PER_TAR = 1000
_ROOT = Path(__file__).resolve().parents[2]


def make_photos(folder: Path, count: int) -> None:
    """Files that begin as a JPEG does and are noise beyond, a thousand to a folder, and `photos.csv`."""
    noise = np.random.default_rng(0).integers(0, 255, 1 << 20, dtype=np.uint8).tobytes()
    folder.mkdir(parents=True)
    with (folder / "photos.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["file", "caption_en", "caption_zh"])
        for number in range(count):
            name = f"{number // _PER_TAR:05d}/{number:09d}.jpg"
            (folder / name).parent.mkdir(exist_ok=True)
            start = number * 97 % (len(noise) - _PHOTO_BYTES)
            (folder / name).write_bytes(b"\xff\xd8\xff\xe0" + noise[start : start + _PHOTO_BYTES])
            writer.writerow([name, f"a cat with the number {number}", f"一只猫 {number}"])


def packed(folder: Path, out: Path) -> Iterator[int]:
    """Pack with the product; yields the number of samples after each tar."""
    from data_tools.corpus.pack import PackOptions, pack_rows
    from data_tools.corpus.pack_sources import open_source

    count = 0
    for part in pack_rows(open_source(str(folder)).items(), out, "p", _PER_TAR, PackOptions()):
        count += part.counts.packed
        yield count


def plainly_written(folder: Path, out: Path) -> Iterator[int]:
    """The plain loop."""
    import webdataset

    out.mkdir(parents=True)
    with (
        (folder / "photos.csv").open(encoding="utf-8", newline="") as file,
        webdataset.ShardWriter(str(out / "p-%05d.tar"), maxcount=_PER_TAR, verbose=0) as writer,
    ):
        for number, row in enumerate(csv.DictReader(file, delimiter=";"), 1):
            captions = {"en": row["caption_en"], "zh": row["caption_zh"]}
            document = json.dumps({"captions": captions, "file": row["file"]}, ensure_ascii=False).encode()
            image = (folder / row["file"]).read_bytes()
            writer.write({"__key__": f"{number - 1:09d}", "jpg": image, "json": document})
            if number % _PER_TAR == 0:
                yield number
        yield number


WAYS = {"pea data pack": packed, "ShardWriter": plainly_written}


def one_round(way: str, folder: Path, out: Path, count: int) -> dict[str, float]:
    """Seconds, those of the processor, and the growth of memory in MB, of this process."""
    started, quarter_mb = time.monotonic(), 0.0
    for done in WAYS[way](folder, out):
        if not quarter_mb and done * 4 >= count:
            quarter_mb = _peak_mb()
    assert done == count
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = {"seconds": time.monotonic() - started, "cpu_seconds": used.ru_utime + used.ru_stime}
    return seconds | {"growth_mb": _peak_mb() - quarter_mb, "peak_mb": _peak_mb()}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def measure(folder: Path, count: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """What each way takes in each round."""
    found: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}

    def act(way: str) -> None:
        out = folder / "out"
        code = "from tests.benchmarks.bench_packing import *; import json, pathlib; P = pathlib.Path\n"
        code += f"print(json.dumps(one_round({way!r}, P({str(folder / 'photos')!r}), P({str(out)!r}), {count})))"
        done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, check=True, capture_output=True, text=True)
        for name, value in json.loads(done.stdout.splitlines()[-1]).items():
            found[way].setdefault(name, []).append(value)
        shutil.rmtree(out)

    make_photos(folder / "photos", count)
    harness.interleave({way: lambda way=way: act(way) for way in WAYS}, rounds)  # type: ignore[misc]
    return {way: {name: values[1:] for name, values in each.items()} for way, each in found.items()}


def main(argv: list[str] | None = None) -> int:
    """Measure and publish."""
    load = harness.load()
    parser = harness.parser(__doc__, "packing")
    parser.add_argument("--samples", type=int, help="photos (default: 2000, with --full 100000)")
    arguments = parser.parse_args(argv)
    count = arguments.samples or (100_000 if arguments.full else 2000)
    with tempfile.TemporaryDirectory(prefix="pea-bench-") as folder:
        found = measure(Path(folder), count, arguments.rounds)
    plain, rows = found["ShardWriter"], []
    for way, each in found.items():
        speed = [f"{harness.ratio(plain[name], each[name]):.2f}" for name in ("seconds", "cpu_seconds")]
        rows.append([way, *(harness.spread(each[name]) for name in each), *speed])
    head = [
        "way",
        "seconds",
        "of the processor",
        "growth, MB",
        "peak, MB",
        "speed to ShardWriter's",
        "of the processor",
    ]
    harness.publish(arguments.out, harness.table(head, rows), {"samples": count, **found}, load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
