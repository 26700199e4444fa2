"""A dress rehearsal at full size: real configurations, random bfloat16 weights, real folder layouts, on a CPU.

    python -m tests.benchmarks.rehearsal --teachers sd15 sdxl ssd1b --folder /tmp/rehearsal

For one teacher after the other: `pea cache` of two images with two draws, one step of the attention phase, one UNet
step with checkpointing, one image in two denoising steps. Each runs in a process of its own, whose peak of memory is
sampled; seconds, memory and bytes are set beside what `pea plan` says. Students are Chinese-CLIP-L for SD1.5 and
Chinese-CLIP-H for the others. `--tiny` tries the script out.

Memory is what the process holds of its own (anonymous and shared memory), beyond what it held before it loaded a model,
and the tensors that lie in mapped weight files. Other pages of these files are not counted: they were read to be
converted, and the system takes them back when it needs them. SDXL needs some 16 GB of memory, and 15 GB of disk; what
is written is deleted at the end.

The file of results is written after each work, and what it holds of other works and teachers stays. So with `--keep`
the models and the cache are found again, and `--works drawing` measures one work anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self
from weakref import WeakSet

import torch
from torch._subclasses.fake_tensor import is_fake

from pea.config import Config, PhaseConfig, resolved_yaml
from stages.command.common import guarded
from tests.benchmarks import harness
from tests.benchmarks.real_models import SIZES_PX, make_config, make_corpus, make_student, make_teacher

KINDS = ("caching", "attention", "training", "drawing")
_STUDENTS = {"sd15": "L", "sdxl": "H", "ssd1b": "H", "tiny-sd15": "tiny", "tiny-sdxl": "tiny"}
_SAMPLES, _DRAWS = 2, 2
_EVERY_S = 0.5
_TRIES = 20
_MODULES: WeakSet[torch.nn.Module] = WeakSet()


def own_bytes() -> int:
    """This process's memory but for pages of mapped files; what is shared with others counts by its share."""
    lines = Path("/proc/self/smaps_rollup").read_text("utf-8").splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


def watch_modules() -> None:
    """Have every module that is made from now on known to `mapped_bytes`."""
    before = torch.nn.Module.__init__

    def init(module: torch.nn.Module, *args: Any, **options: Any) -> None:
        before(module, *args, **options)
        _MODULES.add(module)

    torch.nn.Module.__init__ = init  # type: ignore[method-assign]


def mapped_bytes() -> int:
    """Of the modules' tensors whose values lie in mapped files of weights, as those do that need no conversion."""
    for _ in range(_TRIES):
        with suppress(RuntimeError):  # modules are made in another thread
            return _mapped_bytes()
    return 0


def _mapped_bytes() -> int:
    lines = [line.split() for line in Path("/proc/self/maps").read_text("utf-8").splitlines()]
    ranges = [line[0].split("-") for line in lines if line[-1].endswith(".safetensors")]
    spans = [(int(first, 16), int(last, 16)) for first, last in ranges]
    tensors = [
        tensor
        for module in list(_MODULES)
        for own in (module._parameters, module._buffers)
        for tensor in list(own.values())
        if tensor is not None and tensor.device.type == "cpu" and not is_fake(tensor)
    ]
    found = {tensor.data_ptr(): tensor.nbytes for tensor in tensors}
    return sum(size for place, size in found.items() if any(first <= place < last for first, last in spans))


class Sampled:
    """The most memory held while something is done."""

    def __init__(self) -> None:
        self.peak, self.mapped = own_bytes(), 0
        """Of all, and of that what lay in mapped files then."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._samples, daemon=True)

    def _samples(self) -> None:
        while not self._over.wait(_EVERY_S):
            self._sample()

    def _sample(self) -> None:
        own, mapped = own_bytes(), mapped_bytes()  # in this order: what is being converted is not counted twice
        if own + mapped > self.peak:
            self.peak, self.mapped = own + mapped, mapped

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._sample()


def cache_it(config: Config) -> None:
    """The caching stage's work on the one tar, in this process."""
    from tests.tiny_setup import fill_cache

    fill_cache(config, "parallel", Path(config.corpora.parallel.tars[0]).parent)


def train_it(config: Config, kind: str) -> None:
    """One step of a phase, as `pea train` makes it."""
    from stages import train_adapter
    from stages.command.console import Console

    phase = PhaseConfig(kind="unet" if kind == "training" else "attention", steps=1, batch_size=1)
    train = config.train.model_copy(update={"phases": (phase,), "precision": "bf16", "gradient_checkpointing": True})
    moved = config.model_copy(
        update={"train": train, "run_dir": config.run_dir / kind, "cache_root": config.run_dir / "cache"}
    )
    summary = train_adapter.run(moved, Console(quiet=True))
    assert summary["steps"] == 1, summary


def draw_it(config: Config) -> None:
    """One image in two denoising steps, by the trained adapter."""
    from pea.evaluation.drawing import Drawer
    from pea.pipeline import PEAPrompt

    pea = PEAPrompt.from_pretrained(config.run_dir / "training" / "adapter", config.student.encoders)
    drawer = Drawer(config.teacher.folder, torch.device("cpu"), num_inference_steps=2, guidance_scale=5.0)
    images = drawer.draw(pea.encode(["一只猫"]), pea.encode([""]), [0])
    size = config.cache.buckets[0]
    assert images.shape == (1, *size, 3), images.shape


def act(config: Config, kind: str) -> None:
    """One kind of work."""
    actions: dict[str, Callable[[], None]] = {
        "caching": lambda: cache_it(config),
        "attention": lambda: train_it(config, "attention"),
        "training": lambda: train_it(config, "training"),
        "drawing": lambda: draw_it(config),
    }
    actions[kind]()


def measure(config_file: Path, kind: str) -> dict[str, float]:
    """Runs in a process of its own: seconds, and the most memory beyond what it held before."""
    import diffusers.models
    import transformers.modeling_utils  # noqa: F401 - the libraries are no part of what the models need

    from pea.config import load_config

    assert diffusers.models is not None
    watch_modules()
    config, before = load_config([config_file], []), own_bytes()
    started = time.perf_counter()
    with Sampled() as sampled:
        act(config, kind)
    seconds = time.perf_counter() - started
    found = {"bytes": sampled.peak - before, "mapped_bytes": sampled.mapped, "program_bytes": before}
    return {"seconds": seconds, **found}


def planned(config: Config) -> dict[str, Any]:
    """What `pea plan` says."""
    from pea.costs.plan import Asked, make_plan

    return asdict(make_plan(config, Asked(samples=_SAMPLES)))


def make_everything(teacher: str, folder: Path) -> Config:
    """Models, corpus and configuration in the folder, where they are not there yet."""
    dtype = "float32" if teacher.startswith("tiny-") else "bfloat16"
    train = {"precision": "bf16", "gradient_checkpointing": True, "device": "cpu"}
    config = make_config(folder, teacher, dtype, batch_size=_SAMPLES, num_draws=_DRAWS, **train)
    run = config.cache.run.model_copy(update={"device": "cpu"})
    config = config.model_copy(update={"cache": config.cache.model_copy(update={"run": run})})
    setup = folder / "setup.yaml"
    if not setup.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make_teacher(folder / "teacher", teacher)
        make_student(folder / "student", _STUDENTS[teacher])
        make_corpus(folder, _SAMPLES, SIZES_PX[teacher])
        setup.write_text(resolved_yaml(config), "utf-8")
    return config


def rehearse(
    teacher: str, folder: Path, works: Sequence[str] = KINDS, written: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """These works with one teacher; ``written`` is told what was found after each of them."""
    config = make_everything(teacher, folder)
    one_row = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": 1})})
    found: dict[str, Any] = {"planned": planned(one_row), "measured": {}}
    for kind in works:
        left = config.run_dir if kind == "caching" else config.run_dir / kind
        for each in (left, config.run_dir / "cache" / "text_states"):  # else an earlier run would be taken up
            shutil.rmtree(each, ignore_errors=True)
        command = [sys.executable, "-m", "tests.benchmarks.rehearsal", "--measure", kind, str(folder / "setup.yaml")]
        load = harness.load()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{teacher}, {kind}: exit code {done.returncode}\n{done.stderr[-3000:]}")
        when = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "load_before": load}
        found["measured"][kind] = json.loads(done.stdout.splitlines()[-1]) | when
        if kind == "caching":
            stored = [path for path in (folder / "run/cache").rglob("*.zarr/**/*") if path.is_file()]
            found["stored_bytes"] = sum(path.stat().st_size for path in stored)
        if written is not None:
            written(found)
    return found


def completed(former: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What was found of a teacher, and of works that were not measured this time what is known from before."""
    return former | found | {"measured": former.get("measured", {}) | found["measured"]}


def results_in(path: Path) -> dict[str, Any]:
    """Those of earlier runs, teacher -> what was found."""
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))["teachers"]
    return found


def report(results: dict[str, dict[str, Any]]) -> str:
    """The tables."""
    rows, sizes = [], []
    for teacher, found in results.items():
        for kind, measured in found["measured"].items():
            expected = found["planned"]["memory"][kind]
            ratio = measured["bytes"] / expected
            rows.append(
                [teacher, kind, f"{measured['seconds']:.0f}", f"{measured['bytes'] / 1e9:.2f}"]
                + [f"{expected / 1e9:.2f}", f"{ratio:.2f}"]
            )
        if "stored_bytes" not in found:
            continue
        total = found["planned"]["total_bytes"]
        sizes.append([teacher, f"{found['stored_bytes']:,}", f"{total:,.0f}", f"{found['stored_bytes'] / total:.3f}"])
    head = ["teacher", "work", "seconds", "memory, GB", "planned, GB", "ratio"]
    text = harness.table(head, rows)
    return text + "\n" + harness.table(["teacher", "bytes stored", "planned", "ratio"], sizes)


@contextmanager
def _folder(given: Path | None, *, keep: bool) -> Iterator[Path]:
    if keep and given is not None:
        yield given
        return
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pea-rehearsal-", dir=given) as folder:
        yield Path(folder)


def main(argv: list[str] | None = None) -> int:
    """Measure and publish."""
    load = harness.load()
    parser = harness.parser(__doc__, "rehearsal")
    parser.add_argument("--teachers", nargs="+", choices=tuple(_STUDENTS), default=["sd15", "sdxl", "ssd1b"])
    parser.add_argument("--works", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--folder", type=Path, help="where some 15 GB are written and deleted (default: /tmp)")
    parser.add_argument("--keep", action="store_true", help="delete nothing in --folder, and use what is there")
    parser.add_argument("--tiny", action="store_true", help="tiny models")
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.measure:
        print(json.dumps(measure(Path(arguments.measure[1]), arguments.measure[0])))
        return 0

    def run() -> int:
        results = results_in(arguments.out)
        teachers = ["tiny-sd15", "tiny-sdxl"] if arguments.tiny else arguments.teachers
        with _folder(arguments.folder, keep=arguments.keep) as folder:
            for teacher in teachers:
                former = results.get(teacher, {})

                def written(found: dict[str, Any], teacher: str = teacher, former: dict[str, Any] = former) -> None:
                    results[teacher] = completed(former, found)
                    harness.publish(arguments.out, report({teacher: results[teacher]}), {"teachers": results}, load)

                rehearse(teacher, folder / teacher, arguments.works, written)
                if not arguments.keep:
                    shutil.rmtree(folder / teacher)
        return 0

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
