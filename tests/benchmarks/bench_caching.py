"""The caching stage against a bare loop of the same teacher on tensors in memory: records a second, side by side.

    python -m tests.benchmarks.bench_caching --config configs/demo.yaml

*bare*: the teacher's forward passes alone, batches of the configured size, nothing else. *collector*: one tar to one
finished shard in this process (decode, VAE, English encoders, teacher, sketch, write; overlapping). Needs the corpora
(`make demo` makes them). The stage adds to it the start of Ray and of its actor once per run: `--stage` measures a
whole run, start included.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from rich.console import Console

from pea.cache import Cache, cache_identity
from pea.collect import Collector, Finished, Task
from pea.config import Config, load_config
from pea.encoders import Conditioning, EnglishEncoder
from pea.samples import expand_tars
from pea.teacher import Teacher
from stages.common import guarded
from tests.benchmarks import harness


class Caching:
    """Both ways of one tar's records."""

    def __init__(self, config: Config, device: torch.device, folder: Path) -> None:
        tar = expand_tars(config.corpora.parallel.tars)[0]
        parallel = config.corpora.parallel.model_copy(update={"tars": (str(tar),)})
        corpora = config.corpora.model_copy(update={"parallel": parallel, "culture": None})
        self.config = config.model_copy(update={"run_dir": folder, "cache_root": None, "corpora": corpora})
        self.tar, self.device = tar, device
        self.collector = Collector(self.config, "parallel", device)
        self.identity = cache_identity(self.config, "parallel")
        self.parts: Counter[str] = Counter()
        checkpoint, dtype = config.teacher.checkpoint, getattr(torch, config.teacher.dtype)
        self.teacher = Teacher.from_checkpoint(checkpoint, config.cache.blocks, dtype, device)
        self.text = EnglishEncoder.from_checkpoint(checkpoint, dtype, device).encode([""])
        self.num_records = 0

    def collect(self) -> None:
        """One tar, from the file to the finished shard."""
        shutil.rmtree(self.config.cache_dir("parallel"), ignore_errors=True)
        cache = Cache.create_or_resume(self.config.cache_dir("parallel"), self.identity)
        (part,) = cache.plan()
        for news in self.collector.collect(cache, Task(part, self.tar)):
            if isinstance(news, Finished):
                self.num_records = news.num_samples * part.num_draws
                self.parts.update(news.stage_seconds)

    @torch.inference_mode()
    def bare(self) -> None:
        """As many passes of the teacher."""
        size, left = self.config.cache.run.batch_size, self.num_records // self.config.cache.draws_per_sample
        height, width = self.config.cache.buckets[0]
        factor = 2 ** (len(self.collector_vae_channels) - 1)
        while left > 0:
            count = min(size, left)
            left -= count
            latents = torch.randn(count, self.teacher.unet.config.in_channels, height // factor, width // factor)
            hidden, pooled = self.text
            text = Conditioning(hidden.expand(count, -1, -1), None if pooled is None else pooled.expand(count, -1))
            steps, ids = torch.full((count,), 500), torch.zeros(count, 6, dtype=torch.int64)
            for _ in range(self.config.cache.draws_per_sample):
                self.teacher.forward(latents.to(self.device), steps.to(self.device), text, ids.to(self.device))

    @property
    def collector_vae_channels(self) -> list[int]:
        """Widths of the VAE, of which each but the first halves the size."""
        from pea.layout import vae_config

        return list(vae_config(self.config.teacher.checkpoint)["block_out_channels"])

    def stage(self) -> float:
        """Seconds of a whole run on one actor, start included."""
        from stages import cache_teacher

        shutil.rmtree(self.config.cache_dir("parallel"), ignore_errors=True)
        started = time.perf_counter()
        cache_teacher.run(self.config, Console(quiet=True))
        return time.perf_counter() - started


def measure(caching: Caching, rounds: int) -> tuple[str, dict[str, list[float]]]:
    """The table, and the seconds behind it."""
    caching.collect()  # tells the number of records
    caching.parts.clear()
    seconds = harness.interleave({"bare": caching.bare, "collector": caching.collect}, rounds)
    records = caching.num_records
    rows = [[name, harness.spread([records / s for s in each])] for name, each in seconds.items()]
    rows[1].append(f"{harness.ratio(seconds['bare'], seconds['collector']):.3f}")
    rows[0].append("1")
    text = harness.table(["way", "records/s", "speed, bare = 1"], rows)
    spent = statistics.median(seconds["collector"])
    parts = sorted(((v / (rounds + 1), n) for n, v in caching.parts.items()), reverse=True)
    text += "\n" + harness.table(
        ["part (they overlap)", "seconds", "of the time"],
        [[n, f"{v:.3g}", f"{100 * v / spent:.1f} %"] for v, n in parts],
    )
    return text, seconds


def main(argv: list[str] | None = None) -> int:
    """Measure and publish."""
    load = harness.load()
    parser = harness.parser(__doc__, "caching")
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--stage", action="store_true", help="measure a whole run of the stage too, once")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args(argv)

    def act() -> int:
        config = load_config(arguments.config, arguments.overrides)
        with tempfile.TemporaryDirectory(prefix="pea-bench-") as folder:
            caching = Caching(config, torch.device(arguments.device), Path(folder))
            text, seconds = measure(caching, arguments.rounds)
            result: dict[str, object] = {"records": caching.num_records, "seconds": seconds}
            if arguments.stage:
                result["stage_seconds"] = caching.stage()
                text += f"\nA whole run of the stage, start included: {result['stage_seconds']:.1f} s\n"
        harness.publish(arguments.out, text, result, load)
        return 0

    return guarded(act)


if __name__ == "__main__":
    sys.exit(main())
