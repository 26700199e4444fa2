"""The crash walk: disturb a command at its n-th storage operation, run it again, and compare.

    with forked_walk("tests.faults.cache_scenarios:FILL") as walk:
        faults = walk.faults("kill", "fail", sample=100, seed=1)
        report = walk.run(faults, seconds=60)
    assert not report.findings, report

A step starts from a copy of the scenario's prepared folder. After the fault the same command is run again and must end
well; then what can be read must equal what an undisturbed command left. A folder with the very bytes of one that was
judged before is not judged again.
"""

from __future__ import annotations

import os
import queue
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.faults.control import FAILING, ControlFile, Cut, Fault, Kind, Operation
from tests.faults.disk import Disk
from tests.faults.replay import REPLAYED, digest, left_by
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


def log_of(runner: Runner, start: Path, place: Path) -> list[Operation]:
    """All that the undisturbed command does in its folder, ``place / "folder"``.

    Raises:
        AssertionError: it does not end well, or does what the library cannot see.
    """
    outcome = run_with_fault(runner, start, place, None)
    folder, ended = outcome.folder, outcome.ended
    assert ended.status == 0, f"undisturbed, the command ends with {ended.status}: {ended.output}"
    disk = Disk(start, folder)
    disk.replay(outcome.control.operations())
    differing = _differing_names(disk.now(), read_tree(folder))
    assert not differing, f"written unseen by the interposing library: {differing[:5]}"
    return list(outcome.control.operations())


def count(runner: Runner, start: Path, place: Path) -> list[Operation]:
    """The storage operations of the undisturbed command: what a walk goes over.

    Raises:
        AssertionError: as of ``log_of``, or it does nothing.
    """
    return _counted(log_of(runner, start, place), place / "folder")


def _counted(log: list[Operation], folder: Path) -> list[Operation]:
    operations = [operation.below(folder) for operation in log if operation.number]
    assert operations, "the command does nothing that can be disturbed"
    return operations


class Walk:
    """The walks over one scenario."""

    def __init__(self, runners: Sequence[Runner], scratch: Path, *, replay: bool = False) -> None:
        """Prepare the start, and run the command undisturbed. One step at a time goes through each of the runners.

        ``replay``: what ends the command is not done to a process, but looked up in the log of the undisturbed one.

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
        undisturbed = scratch / "undisturbed" / "folder"
        log = log_of(runners[0], self.start, undisturbed.parent)
        self.operations = _counted(log, undisturbed)
        """Of the undisturbed command, with paths relative to its folder."""
        self.expected = self._call(runners[0], "result", undisturbed)
        self._names = _names(read_tree(undisturbed))
        self._replayed = REPLAYED if replay else frozenset[Kind]()
        self._left_by = lambda fault: left_by(fault, self.start, undisturbed, log)
        self._judged: dict[tuple[str, bool], Report] = {}
        self._answers: dict[tuple[str, str], Ended] = {}

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
        folder = place / "folder"
        if fault.kind in self._replayed:
            tree, hit = self._left_by(fault)
            ended = Ended(0 if hit is None else -signal.SIGKILL, None, "")
            shutil.rmtree(folder, ignore_errors=True)
            write_tree(tree, folder)
        else:
            outcome = run_with_fault(runner, self.start, place, fault)
            ended, hit, tree = outcome.ended, outcome.hit, read_tree(folder)
        over = hit is None and ended.status == 0
        if hit is None:
            report.num_unreached += fault.at <= len(self.operations)
        found = Report(0, 0)
        judge = Judge(lambda call: self._ask(runner, call, folder), self.expected, found, fault, hit, f"{folder}/")
        if fault.kind in ("fail", "short"):
            judge.politeness(ended)
        rude = len(found.findings)
        key = (digest(tree), over)
        if key not in self._judged:
            if judge.what_is_left(over=over):
                found.litter.update((_names(read_tree(folder)) - self._names).keys())
            self._judged[key] = Report(0, 0, found.findings[rude:], litter=found.litter)
        else:
            report.num_alike += 1
            found.findings += [replace(each, fault=fault, operation=hit) for each in self._judged[key].findings]
        report.findings += found.findings
        report.litter.update(self._judged[key].litter.keys())

    def _ask(self, runner: Runner, call: Call, folder: Path) -> Ended:
        """What there is to read in a folder of the same bytes is asked once."""
        if call not in ("result", "leftovers"):
            return runner.run(call, folder)
        key = (call, digest(read_tree(folder)))
        if key not in self._answers:
            self._answers[key] = runner.run(call, folder)
        return self._answers[key]

    def _call(self, runner: Runner, call: Call, folder: Path) -> Any:
        ended = runner.run(call, folder)
        assert ended.status == 0, f"{call} of the scenario fails: {ended.output}"
        return ended.value


@contextmanager
def forked_walk(scenario: str, jobs: int = 1, *, replay: bool = False) -> Iterator[Walk]:
    """A walk in forks of ``jobs`` warm processes, in a temporary folder (in memory, where there is one)."""
    memory = Path("/dev/shm")  # nothing is durable there, and nothing needs to be
    with ExitStack() as stack:
        parent = memory if os.access(memory, os.W_OK) else None
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-", dir=parent)))
        runners = [stack.enter_context(Forked(scenario, scratch / f"server{number}")) for number in range(jobs)]
        yield Walk(runners, scratch, replay=replay)


def _faults_at(kind: Kind, number: int, chance: random.Random) -> list[Fault]:
    if kind == "fail":
        return [Fault(kind, number, error, lasting=lasting) for error in FAILING for lasting in (False, True)]
    if kind == "power":
        return [Fault(kind, number, cut=cut) for cut in CUTS]
    return [Fault(kind, number, part=chance.randrange(256))]


def _names(tree: Tree) -> Counter[str]:
    """The names in a folder; what makes a name unique is left out."""
    return Counter(map(without_unique_parts, tree))


def _differing_names(a: Tree, b: Tree) -> list[str]:
    missing = object()
    return sorted(name for name in {*a, *b} if a.get(name, missing) != b.get(name, missing))
