"""The crash walk: disturb a command at its n-th storage operation, run it again, and compare.

    with forked_walk("tests.faults.cache_scenarios:FILL") as walk:
        faults = walk.faults("kill", "fail", sample=100, seed=1)
        report = walk.run(faults, seconds=60)
    assert not report.findings, report

A step starts from a copy of the scenario's prepared folder. After the fault the same command is run again and must end
well; then what can be read must equal what an undisturbed command left.
"""

from __future__ import annotations

import os
import queue
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.control import FAILING, ControlFile, Cut, Fault, Kind, Operation
from tests.faults.disk import Disk
from tests.faults.report import Judge, Report, without_unique_parts
from tests.faults.runners import Call, Ended, Forked, Runner
from tests.faults.tree import Tree, read_tree, write_tree

CUTS: tuple[Cut, ...] = ("lost", "empty", "mixed")


@dataclass(frozen=True)
class Outcome:
    """What became of a command that was disturbed."""

    folder: Path
    """As the fault left it."""
    ended: Ended
    control: ControlFile
    """With the log."""

    @property
    def hit(self) -> Operation | None:
        """What was struck; None: nothing."""
        hit = self.control.hit
        return hit and hit.below(self.folder)


def run_with_fault(runner: Runner, start: Path, place: Path, fault: Fault | None) -> Outcome:
    """Run the command on a fresh copy of the start; a power cut is done to what it leaves.

    ``place``: a folder for the copy, ``folder``, and the log beside it.
    """
    folder, path = place / "folder", place / "control"
    shutil.rmtree(folder, ignore_errors=True)
    path.unlink(missing_ok=True)
    place.mkdir(parents=True, exist_ok=True)
    shutil.copytree(start, folder, symlinks=True)
    control = ControlFile(path, folder, fault)
    ended = runner.run("command", folder, control)
    if fault is not None and fault.kind == "power":
        disk = Disk(start, folder)
        disk.replay(control.operations())
        tree = disk.after_power_cut(fault.cut, seed=fault.at)
        shutil.rmtree(folder)
        write_tree(tree, folder)
    return Outcome(folder, ended, control)


def count(runner: Runner, start: Path, place: Path) -> list[Operation]:
    """The storage operations of the undisturbed command: what a walk goes over.

    Raises:
        AssertionError: it does not end well, does nothing, or does what the library cannot see.
    """
    outcome = run_with_fault(runner, start, place, None)
    folder, ended = outcome.folder, outcome.ended
    assert ended.status == 0, f"undisturbed, the command ends with {ended.status}: {ended.output}"
    disk = Disk(start, folder)
    disk.replay(outcome.control.operations())
    differing = _differing_names(disk.now(), read_tree(folder))
    assert not differing, f"written unseen by the interposing library: {differing[:5]}"
    operations = [operation.below(folder) for operation in outcome.control.operations() if operation.number]
    assert operations, "the command does nothing that can be disturbed"
    return operations


class Walk:
    """The walks over one scenario."""

    def __init__(self, runners: Sequence[Runner], scratch: Path) -> None:
        """Prepare the start, and run the command undisturbed. One step at a time goes through each of the runners.

        Raises:
            AssertionError: the command does not end well undisturbed, or does what the library cannot see.
        """
        self._runners: queue.SimpleQueue[tuple[Runner, Path]] = queue.SimpleQueue()
        for number, runner in enumerate(runners):
            place = scratch / f"worker{number}"
            place.mkdir(parents=True)
            self._runners.put((runner, place))
        self._num_runners = len(runners)
        self.start = scratch / "start"
        self.start.mkdir()
        self._call(runners[0], "prepare", self.start)
        self.operations = count(runners[0], self.start, scratch / "undisturbed")
        """Of the undisturbed command, with paths relative to its folder."""
        undisturbed = scratch / "undisturbed" / "folder"
        self.expected = self._call(runners[0], "result", undisturbed)
        self._names = _names(undisturbed)

    def faults(self, *kinds: Kind, sample: int | None = None, seed: int = 0) -> list[Fault]:
        """Every fault of some kinds that can happen, in an order by the seed; ``sample``: no more than so many."""
        chance = random.Random(seed)
        found = []
        for operation in self.operations:
            for kind in kinds:
                faults = _faults_at(kind, operation.number, chance)
                found += [fault for fault in faults if fault.can_hit(operation.op)]
        if "power" in kinds:
            found += [Fault("power", len(self.operations) + 1, cut=cut) for cut in CUTS]
        chance.shuffle(found)
        return found[:sample]

    def run(
        self,
        faults: Sequence[Fault],
        *,
        seconds: float | None = None,
        progress: Callable[[Report], object] = lambda _: None,
    ) -> Report:
        """Take a step for each fault, or for as many as there is time for."""
        report = Report(len(self.operations), len(faults))
        begun = time.monotonic()

        def step(fault: Fault) -> None:
            if seconds is not None and time.monotonic() - begun > seconds:
                return
            runner, place = self._runners.get()
            try:
                self._step(runner, place, fault, report)
            finally:
                self._runners.put((runner, place))
            report.num_steps += 1
            report.seconds = time.monotonic() - begun
            progress(report)

        with ThreadPoolExecutor(self._num_runners) as pool:
            list(pool.map(step, faults))
        return report

    def _step(self, runner: Runner, place: Path, fault: Fault, report: Report) -> None:
        outcome = run_with_fault(runner, self.start, place, fault)
        folder, ended, hit = outcome.folder, outcome.ended, outcome.hit
        over = hit is None and ended.status == 0
        if hit is None:
            report.num_unreached += fault.at <= len(self.operations)
        judge = Judge(lambda call: runner.run(call, folder), self.expected, report, fault, hit, f"{folder}/")
        if fault.kind in ("fail", "short"):
            judge.politeness(ended)
        if judge.what_is_left(over=over):
            report.litter.update((_names(folder) - self._names).keys())

    def _call(self, runner: Runner, call: Call, folder: Path) -> Any:
        ended = runner.run(call, folder)
        assert ended.status == 0, f"{call} of the scenario fails: {ended.output}"
        return ended.value


@contextmanager
def forked_walk(scenario: str, jobs: int = 1) -> Iterator[Walk]:
    """A walk in forks of ``jobs`` warm processes, in a temporary folder (in memory, where there is one)."""
    memory = Path("/dev/shm")  # nothing is durable there, and nothing needs to be
    with ExitStack() as stack:
        parent = memory if os.access(memory, os.W_OK) else None
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-", dir=parent)))
        runners = [stack.enter_context(Forked(scenario, scratch / f"server{number}")) for number in range(jobs)]
        yield Walk(runners, scratch)


def _faults_at(kind: Kind, number: int, chance: random.Random) -> list[Fault]:
    if kind == "fail":
        return [Fault(kind, number, error, lasting=lasting) for error in FAILING for lasting in (False, True)]
    if kind == "power":
        return [Fault(kind, number, cut=cut) for cut in CUTS]
    return [Fault(kind, number, part=chance.randrange(256))]


def _names(folder: Path) -> Counter[str]:
    """The names in a folder; what makes a name unique is left out."""
    return Counter(map(without_unique_parts, read_tree(folder)))


def _differing_names(a: Tree, b: Tree) -> list[str]:
    missing = object()
    return sorted(name for name in {*a, *b} if a.get(name, missing) != b.get(name, missing))
