"""What a walk found, and what of a step is a finding."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.faults.runners import Call, Ended

EXIT_ERROR = 2
_ERROR_LINE = re.compile(r"^pea: error: .+$", re.MULTILINE)
ALLOWED = re.compile(r"(.+/)?\.([^/]+\.(json|jsonl|html|png|md|safetensors|lease)|(\.clock\.tmp-\*|clock))\.tmp-\*")
"""What may lie about when the same command was run again: single files that a dead process was writing, under names
that nobody reads, and its looks at the store's clock, which are empty. They hold nothing that was taken down (scenarios
look for it), and go when they are ten minutes old and a command works on that folder."""
_UNIQUE = re.compile(r"(?=[0-9a-f]*[0-9])[0-9a-f]{8,}|(?<=tmp)\w{8}|(?<=\.publish-)\w+")


@dataclass(frozen=True)
class Finding:
    """One thing that went wrong."""

    fault: Any
    operation: Any
    """What was struck; None: nothing."""
    what: str
    """``rude``: the error was not one line. ``between``: a reader was shown something else than old or new.
    ``again``: the command did not complete when it was run again. ``different``: it did, and the result differs.
    ``not durable``: it had ended well, and then a power cut took the result. ``leftover``: what must not be there."""
    detail: str

    @property
    def group(self) -> tuple[str, ...]:
        """What is alike in findings that have one cause, as a rule."""
        struck = str(self.operation).split(" ", 1)[0]
        return (self.what, str(self.fault).partition(" at ")[0], struck, _UNIQUE.sub("*", self.detail)[-60:])

    def __str__(self) -> str:
        return f"{self.what}: {self.fault}: {self.operation}: {self.detail}"


@dataclass
class Report:
    """What a walk found."""

    num_operations: int
    num_planned: int
    findings: list[Finding] = field(default_factory=list)
    num_steps: int = 0
    num_unreached: int = 0
    """Steps whose operation never came: another order of threads, or fewer tries."""
    num_alike: int = 0
    """Steps that left the very bytes that an earlier one had left, which was judged for both."""
    litter: Counter[str] = field(default_factory=Counter)
    """Names that stay after the command was run again, and are not there undisturbed -> in how many steps."""
    seconds: float = 0.0

    def of(self, *whats: str) -> list[Finding]:
        """The findings of some kinds."""
        return [each for each in self.findings if each.what in whats]

    @property
    def forbidden_litter(self) -> list[str]:
        """Names that stay, and are not among what may lie about."""
        return sorted(name for name in self.litter if not ALLOWED.fullmatch(name))

    def __str__(self) -> str:
        head = (
            f"{self.num_steps} of {self.num_planned} steps over {self.num_operations} operations "
            f"in {self.seconds:.0f} s, {self.num_unreached} not reached, {self.num_alike} left what others had left; "
            f"{len(self.findings)} findings"
        )
        groups: dict[tuple[str, ...], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault(finding.group, []).append(finding)
        lines = [f"- {len(found)} times, as {found[0]}" for found in sorted(groups.values(), key=len, reverse=True)]
        litter = [
            f"  litter in {count} steps{'' if ALLOWED.fullmatch(name) else ', forbidden'}: {name}"
            for name, count in self.litter.most_common(20)
        ]
        return "\n".join([head, *lines[:40], *litter])


@dataclass(frozen=True)
class Judge:
    """Decides what of a step is a finding."""

    run: Callable[[Call], Ended]
    """Runs one of the scenario's functions, undisturbed, on what the fault left."""
    expected: Any
    """What the undisturbed command came to."""
    report: Report
    fault: Any
    struck: object
    place: str
    """Left out of what is shown."""

    def politeness(self, ended: Ended) -> None:
        """A command that met an error goes on, or says so in one line."""
        if not _is_polite(ended):
            self._found("rude", f"exit code {ended.status}: {_end(ended)}")

    def what_is_left(self, *, over: bool) -> bool:
        """Look, run the command again, compare. ``over``: it had ended well. Returns whether it did in the end."""
        looked = self.run("between")
        if looked.status:
            self._found("between", _end(looked))
        if not over:
            again = self.run("command")
            if again.status:
                self._found("again", f"exit code {again.status}: {_end(again)}")
                return False
        result = self.run("result")
        if result.status or result.value != self.expected:
            detail = _end(result) if result.status else _difference(self.expected, result.value)
            self._found("not durable" if over else "different", detail)
        for leftover in self.run("leftovers").value or ():
            self._found("leftover", leftover)
        return True

    def _found(self, what: str, detail: str) -> None:
        self.report.findings.append(Finding(self.fault, self.struck, what, detail.replace(self.place, "").strip()))


def _is_polite(ended: Ended) -> bool:
    """Whether a command that met an error went on, or said so in one line."""
    if ended.status == 0:
        return True
    lines = [line for line in ended.output.splitlines() if line.strip()]
    return ended.status == EXIT_ERROR and len(lines) == 1 and _ERROR_LINE.match(lines[0]) is not None


def _end(ended: Ended) -> str:
    """The last lines of what was said."""
    return " | ".join(ended.output.strip().splitlines()[-3:])[-400:]


def without_unique_parts(name: str) -> str:
    """A name without what makes it unique."""
    return _UNIQUE.sub("*", name)


def _difference(expected: Any, got: Any) -> str:
    if isinstance(expected, dict) and isinstance(got, dict):
        names = sorted(name for name in {*expected, *got} if expected.get(name) != got.get(name))
        return ", ".join(f"{name}: {got.get(name)} in place of {expected.get(name)}" for name in names[:3])[:400]
    return f"{got} in place of {expected}"[:400]
