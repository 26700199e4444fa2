"""A training step from the cache against its ceiling, against online distillation, and against the original's way.

    python -m tests.benchmarks.bench_training --config configs/demo.yaml
    python -m tests.benchmarks.bench_training --big     (UNet and VAE of SD1.5's size, random weights, 512 px)

Needs a filled cache (`make demo`); `--big` needs the corpora, and fills a cache of its own with a few records. All
kinds of step see the same rows:

* *ceiling*: batches that lie in memory already; nothing is read.
* *cached*: batches from the cache, read ahead by a thread as `train.num_workers` says (*read between*: by none).
* *online*: no cache: VAE and English encoders run at each step, and the teacher's pass through the shared UNet.
* *original*: as the published code arranges it: as online, but the student has a UNet of its own, and the native
  encoder runs at each step too.

Images are in memory, decoded, for all; so `online` and `original` are flattered. In each round every kind makes several
steps in a row; what is read ahead is read within them.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch

from pea.batches.batch import Batch
from pea.batches.dataset import prefetch
from pea.config import Config, load_config
from pea.corpus.samples import expand_tars
from pea.models.encoders.pair import load_encoder
from pea.models.english import EnglishEncoder
from pea.models.unet import Teacher
from pea.models.vae import VaeEncoder
from pea.training.losses import LossWeights
from pea.training.signals import CachedTeacher, LiveTeacher, SignalSource, english_conditioning
from pea.training.student import student_losses
from stages.command.common import guarded
from stages.training.setup import Setup, prepare
from tests.benchmarks import harness
from tests.benchmarks.big_unet import SIZE_PX, big_config, first_samples
from tests.tiny_setup import fill_cache

_STEPS = 4
_BIG_SAMPLES = 2
KINDS = ("ceiling", "cached", "cached, read between", "online", "original")


class Steps:
    """Training steps of each kind, over the same rows."""

    def __init__(self, config: Config, device: torch.device, num_steps: int) -> None:
        self.device, self.setup, self.num_steps = device, prepare(config, device), num_steps
        self.weights = LossWeights(config.train.noise_pred_weight, config.train.feature_weight)
        checkpoint = config.teacher.folder
        dtype = getattr(torch, config.teacher.dtype)
        self.vae = VaeEncoder.from_checkpoint(checkpoint, dtype, device)
        self.english = EnglishEncoder.from_checkpoint(checkpoint, dtype, device)
        self.native = load_encoder(config.student.encoders, device=device, reading=config.student.reading)
        self.live = LiveTeacher(self.setup.teacher, self.english.encode, self.setup.teacher.blocks)
        self.own_unet = Teacher(copy.deepcopy(self.setup.teacher.unet), self.setup.teacher.scheduler)
        self.batches = [self.setup.data.batch(index).to(device) for index in range(num_steps)]
        self.num_workers = config.train.num_workers
        height, width = config.cache.buckets[0]
        self.pixels = torch.randn(len(self.batches[0]), 3, height, width, device=device)

    def kinds(self) -> dict[str, Callable[[], None]]:
        """Kind of step -> some steps."""
        return {kind: partial(self.steps, kind) for kind in KINDS}

    def steps(self, kind: str) -> None:
        """Steps of a kind, one after the other."""
        batches: Iterable[Batch] = self.batches
        if kind.startswith("cached"):
            ahead = self.num_workers if kind == "cached" else 0
            batches = (batch.to(self.device) for batch in prefetch(self.setup.data.batch, range(self.num_steps), ahead))
        for batch in batches:
            self.step(kind, batch)

    def step(self, kind: str, batch: Batch) -> None:
        """One step."""
        setup, student = self.setup, self.setup.teacher
        source: SignalSource = setup.source
        if kind in ("online", "original"):
            self.vae.encode(self.pixels)
            source = self.live
        if kind == "original":
            student = self.own_unet
        states = self.native.encode if kind == "original" else setup.native_states
        hidden, mask = states(batch.native_captions)
        self._losses(setup, batch, hidden, mask, student, source)

    def _losses(
        self,
        setup: Setup,
        batch: Batch,
        hidden: torch.Tensor | None,
        mask: torch.Tensor | None,
        student: Teacher,
        source: SignalSource,
    ) -> None:
        assert hidden is not None
        hidden, mask = hidden.to(self.device), None if mask is None else mask.to(self.device)
        losses = student_losses(batch, hidden, mask, setup.adapter, student, source, self.weights)
        losses.total.backward()  # type: ignore[no-untyped-call]
        setup.adapter.zero_grad()

    def components(self) -> dict[str, Callable[[], object]]:
        """Part of a step -> that part alone."""
        batch, setup = self.batches[0], self.setup
        rows = batch.num_parallel
        noisy = setup.teacher.add_noise(batch.latents, batch.noise, batch.timesteps)
        ids = batch.time_ids

        @torch.no_grad()
        def teacher() -> None:
            text = english_conditioning(self.live.encode, batch, self.live.teacher.unet.device)
            setup.teacher.forward(noisy[:rows], batch.timesteps[:rows], text, ids[:rows])

        with torch.no_grad():
            text = setup.adapter(*(part for part in self.native.encode(batch.native_captions)))
            output = setup.teacher.forward(noisy, batch.timesteps, text, ids)

        def sketch() -> None:
            features = {name: value.detach().requires_grad_() for name, value in output.features.items()}
            errors = setup.source.errors(output._replace(features=features), batch, noisy)
            torch.stack([error.sum() for error in errors.blocks.values()]).sum().backward()  # type: ignore[no-untyped-call]

        def project() -> None:
            assert isinstance(setup.source, CachedTeacher)
            for block, feature in output.features.items():
                leaf = feature[:rows].detach().requires_grad_()
                sketch = setup.source.sketch(block, tuple(feature.shape[1:]))
                torch.autograd.grad(sketch.project(leaf, batch.record_ids).sum(), leaf)

        return {
            "read and collate": lambda: setup.data.batch(0),
            "VAE": lambda: self.vae.encode(self.pixels),
            "English encoders": lambda: self.english.encode(batch.english_captions),
            "native encoder": lambda: self.native.encode(batch.native_captions),
            "teacher, with its English": teacher,
            "projection of the features and its backward": project,
            "the same with the feature losses": sketch,
            "whole step (ceiling)": partial(self.step, "ceiling", batch),
        }


def with_big_teacher(config: Config, folder: Path, size_px: int, device: torch.device) -> Config:
    """The same recipe with a teacher of SD1.5's size, and its cache, which is filled here."""
    tar = first_samples(expand_tars(config.corpora.parallel.tars)[0].location.local_path, _BIG_SAMPLES, folder)
    config = big_config(config, folder, size_px, whole_vae=True)
    parallel = config.corpora.parallel.model_copy(update={"tars": (str(tar),)})
    run = config.cache.run.model_copy(update={"batch_size": 1})
    train = {"batch_size": 1, "culture_fraction": 0.0, "phases": (), "text_weight": 0.0, "num_workers": 1}
    config = config.model_copy(
        update={
            "run_dir": folder,
            "cache_root": None,
            "corpora": config.corpora.model_copy(update={"parallel": parallel, "culture": None}),
            "cache": config.cache.model_copy(update={"draws_per_sample": 2, "run": run}),
            "train": config.train.model_copy(update=train),
        }
    )
    fill_cache(config, "parallel", tar.parent, device)
    return config


def measure(
    config: Config, device: torch.device, rounds: int, num_steps: int = _STEPS
) -> tuple[str, dict[str, dict[str, list[float]]]]:
    """The tables, and the seconds behind them."""
    steps = Steps(config, device, num_steps)
    kinds = harness.interleave(steps.kinds(), rounds)
    parts = harness.interleave(steps.components(), rounds)
    rows = [
        [kind, harness.spread(seconds), f"{harness.ratio(kinds['ceiling'], seconds):.3f}", _faster(kinds, kind)]
        for kind, seconds in kinds.items()
    ]
    text = harness.table([f"{num_steps} steps", "seconds", "speed, ceiling = 1", "times slower than cached"], rows)
    whole = parts["whole step (ceiling)"]
    shares = [
        [n, harness.spread(s), f"{100 * statistics.median(s) / statistics.median(whole):.1f} %"]
        for n, s in parts.items()
    ]
    text += "\n" + harness.table(["part", "seconds", "of a step"], shares)
    return text, {"steps": kinds, "parts": parts}


def _faster(kinds: dict[str, list[float]], kind: str) -> str:
    return f"{harness.ratio(kinds[kind], kinds['cached']):.2f}"


def main(argv: list[str] | None = None) -> int:
    """Measure and publish."""
    load = harness.load()
    parser = harness.parser(__doc__, "training")
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--big", action="store_true", help="a teacher of SD1.5's size with random weights")
    parser.add_argument("--size-px", type=int, default=SIZE_PX, help="of its images (default: 512)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args(argv)

    def act() -> int:
        config, device = load_config(arguments.config, arguments.overrides), torch.device(arguments.device)
        rounds = max(arguments.rounds, 7) if arguments.full and not arguments.big else arguments.rounds
        with tempfile.TemporaryDirectory(prefix="pea-bench-") as folder:
            if arguments.big:
                config = with_big_teacher(config, Path(folder), arguments.size_px, device)
            text, seconds = measure(config, device, rounds, 1 if arguments.big else _STEPS)
        harness.publish(arguments.out, text, {"seconds": seconds}, load)
        return 0

    return guarded(act)


if __name__ == "__main__":
    sys.exit(main())
