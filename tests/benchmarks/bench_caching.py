"""The caching stage against a bare loop of the same teacher on tensors in memory: records a second, side by side.

    python -m tests.benchmarks.bench_caching --config configs/demo.yaml
    python -m tests.benchmarks.bench_caching --samples 256 cache.draws_per_sample=16
    python -m tests.benchmarks.bench_caching --big --samples 2          (a UNet of SD1.5's size, random weights, 512 px)

* *bare*: the teacher's forward passes alone, in a plain loop, each on all cores. Batches, memory layout and inference
  mode are those of the stage; nothing else is done.
* *bare, a batch per core*: the same passes, as many at a time as the stage has under way: the harder comparison.
* *models*: what no cache can do without: the passes, and one VAE encode and one text encode per sample, from decoded
  images in memory, as many at a time.
* *collector*: one tar to one finished shard in this process (decode, VAE, English encoders, draws, teacher, sketch,
  write, sync, digests).

Needs the corpora (`make demo` makes them). The stage adds to it the start of Ray and of its actor once per run:
`--stage` measures a whole run, start included.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from pea.cache import Cache, cache_identity
from pea.collect.collector import Collector, Finished, Task
from pea.collect.decoded import Decoded
from pea.collect.overlap import map_in_threads
from pea.collect.teacher_rows import FrozenModels
from pea.config import Config, load_config
from pea.corpus.images import bucket_name
from pea.corpus.samples import expand_tars
from pea.models.conditioning import Conditioning
from pea.models.english import EnglishEncoder
from pea.models.unet import Teacher
from pea.models.vae import VaeEncoder
from stages.command.common import guarded
from stages.command.console import Console
from tests.benchmarks import harness
from tests.benchmarks.big_unet import SIZE_PX, big_config, first_samples

_QUICK_SAMPLES = 256


class Caching:
    """All ways of one tar's records."""

    def __init__(self, config: Config, device: torch.device, folder: Path, num_samples: int | None) -> None:
        tar = expand_tars(config.corpora.parallel.tars)[0].location.local_path
        if num_samples is not None:
            tar = first_samples(tar, num_samples, folder)
        parallel = config.corpora.parallel.model_copy(update={"tars": (str(tar),)})
        corpora = config.corpora.model_copy(update={"parallel": parallel, "culture": None})
        self.config = config.model_copy(update={"run_dir": folder, "cache_root": None, "corpora": corpora})
        self.tar, self.device = tar, device
        self.collector = Collector(self.config, "parallel", device)
        self.models: FrozenModels = self.collector._models  # a second copy of a large teacher may not fit
        self.identity = cache_identity(self.config, "parallel")
        self.parts: Counter[str] = Counter()
        self.num_records = 0
        self.batches = self._decoded()

    def _decoded(self) -> list[list[Decoded]]:
        """The tar's samples, decoded, in batches."""
        cache = Cache.create_or_resume(self.config.cache_dir("parallel"), self.identity)
        (part,) = cache.plan()
        decode = self.collector._decode(Task(part, self.tar), cache.identity.tars_by_name[part.tar], str)
        return [batch for batch in self.collector._batches(decode) if isinstance(batch, list)]

    def collect(self) -> None:
        """One tar, from the file to the finished shard."""
        shutil.rmtree(self.config.cache_dir("parallel"), ignore_errors=True)
        cache = Cache.create_or_resume(self.config.cache_dir("parallel"), self.identity)
        (part,) = cache.plan()
        for event in self.collector.collect(cache, Task(part, self.tar)):
            if isinstance(event, Finished):
                self.num_records = event.num_samples * part.num_draws
                self.parts.update(event.stage_seconds)

    @torch.inference_mode()
    def passes(self, batch: Sequence[Decoded]) -> None:
        """The teacher's passes over one batch, on random tensors."""
        teacher: Teacher | None = self.models._teacher
        assert teacher is not None
        shape = self.models.layouts[bucket_name(batch[0].placed.bucket)].latent_shape
        latents = torch.randn(len(batch), *shape, device=self.device)
        hidden, pooled = (None if part is None else part.expand(len(batch), *part.shape[1:]) for part in self.text())
        assert hidden is not None
        steps = torch.full((len(batch),), 500, device=self.device)
        ids = torch.zeros(len(batch), 6, dtype=torch.int64, device=self.device)
        for _ in range(self.config.cache.draws_per_sample):
            teacher.forward(latents, steps, Conditioning(hidden, pooled), ids)

    def text(self) -> Conditioning:
        """The conditioning of one caption."""
        return self.models._empty

    @torch.inference_mode()
    def models_alone(self, batch: Sequence[Decoded]) -> None:
        """One batch's VAE and text encodes, and its passes."""
        vae: VaeEncoder = self.models._vae
        english: EnglishEncoder = self.models._english
        vae.encode(torch.stack([torch.from_numpy(item.placed.pixels) for item in batch]))
        english.encode([item.captions[self.config.corpora.parallel.source_language] for item in batch])
        self.passes(batch)

    def loop(self, *, at_once: bool, models: bool) -> None:
        """Every batch once."""
        threads, count = torch.get_num_threads(), sum(map(len, self.batches))
        together = self.collector._batches_at_once(count) if at_once else 1
        torch.set_num_threads(max(1, threads // together))
        for _ in map_in_threads(self.models_alone if models else self.passes, self.batches, together):
            pass
        torch.set_num_threads(threads)

    def ways(self) -> dict[str, partial[None]]:
        """What is measured, by name."""
        return {
            "bare": partial(self.loop, at_once=False, models=False),
            "bare, a batch per core": partial(self.loop, at_once=True, models=False),
            "models": partial(self.loop, at_once=True, models=True),
            "collector": partial(self.collect),
        }

    def stage(self) -> float:
        """Seconds of a whole run on one actor, start included."""
        from stages.cluster.filling import fill_caches

        shutil.rmtree(self.config.cache_dir("parallel"), ignore_errors=True)
        started = time.perf_counter()
        fill_caches(self.config, Console(quiet=True))
        return time.perf_counter() - started


def measure(caching: Caching, rounds: int) -> tuple[str, dict[str, list[float]]]:
    """The tables, and the seconds behind them."""
    caching.collect()  # tells the number of records
    caching.parts.clear()
    seconds = harness.interleave(caching.ways(), rounds)
    records = caching.num_records
    rows = [
        [name, harness.spread([records / s for s in each]), f"{harness.ratio(each, seconds['collector']):.3f}"]
        for name, each in seconds.items()
    ]
    text = harness.table(["way", "records/s", "speed of the collector, this = 1"], rows)
    spent = statistics.median(seconds["collector"])
    parts = sorted(((v / (rounds + 1), n) for n, v in caching.parts.items()), reverse=True)
    text += "\n" + harness.table(
        ["part of the collector (they overlap)", "seconds, all threads", "of the time"],
        [[n, f"{v:.3g}", f"{100 * v / spent:.1f} %"] for v, n in parts],
    )
    return text, seconds


def main(argv: list[str] | None = None) -> int:
    """Measure and publish."""
    load = harness.load()
    parser = harness.parser(__doc__, "caching")
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument(
        "--samples", type=int, metavar="N", help="use the tar's first N samples (default: 256; all with --full)"
    )
    parser.add_argument("--big", action="store_true", help="a UNet of SD1.5's size with random weights")
    parser.add_argument("--size-px", type=int, default=SIZE_PX, help="of its images (default: 512)")
    parser.add_argument("--stage", action="store_true", help="measure a whole run of the stage too, once")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args(argv)

    def act() -> int:
        with tempfile.TemporaryDirectory(prefix="pea-bench-") as folder:
            config = load_config(arguments.config, arguments.overrides)
            if arguments.big:
                config = big_config(config, Path(folder), arguments.size_px)
            num_samples = arguments.samples or (None if arguments.full else _QUICK_SAMPLES)
            caching = Caching(config, torch.device(arguments.device), Path(folder), num_samples)
            text, seconds = measure(caching, arguments.rounds)
            result: dict[str, object] = {"records": caching.num_records, "seconds": seconds}
            if arguments.stage:
                result["stage_seconds"] = caching.stage()
                text += f"\nA whole run of the stage, start included: {result['stage_seconds']:.1f} s\n"
        text = f"{caching.num_records} records, {config.cache.draws_per_sample} a sample\n\n{text}"
        harness.publish(arguments.out, text, result, load)
        return 0

    return guarded(act)


if __name__ == "__main__":
    sys.exit(main())
