"""The walk finds what careless writers lose, and nothing in a careful one."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.__main__ import SCENARIOS, main
from tests.faults.control import Fault, Kind, Op
from tests.faults.example_scenarios import BROKEN, CAREFUL, TEXT
from tests.faults.interposer import reason_to_skip
from tests.faults.replay import REPLAYED, left_by
from tests.faults.report import Report
from tests.faults.runners import Forked, Subprocesses
from tests.faults.scenario import find_scenario
from tests.faults.tree import read_tree
from tests.faults.walk import Walk, count, forked_walk, log_of, run_with_fault

pytestmark = [pytest.mark.slow, pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))]

EXAMPLES = "tests.faults.example_scenarios"
WRITING = f"import pathlib, sys; pathlib.Path(sys.argv[1], 'file').write_text({TEXT!r})"


def walked(name: str, *kinds: Kind, sample: int | None = None) -> Report:
    with forked_walk(f"{EXAMPLES}:{name}") as walk:
        return walk.run(walk.faults(*kinds, sample=sample))


def test_a_careful_writer_loses_nothing() -> None:
    report = walked("CAREFUL", "kill", "fail", "tear", "short", "power", sample=30)
    assert report.findings == [], str(report)
    assert report.num_operations == 5 and report.num_steps == report.num_planned == 30
    assert report.num_unreached == 0 and not report.litter


@pytest.mark.parametrize(
    ("name", "kind", "wanted"),
    [
        ("IN_PLACE", "kill", {"between": 1, "different": 1}),
        ("IN_PLACE", "tear", {"between": 1, "different": 1}),
        ("UNSYNCED", "power", {"between", "different", "not durable"}),
        ("UNSYNCED_NAME", "power", {"not durable"}),
        ("UNGUARDED", "fail", {"rude"}),
        ("LEFT_OVER", "kill", {"leftover"}),
    ],
)
def test_each_carelessness_is_found(name: str, kind: Kind, wanted: dict[str, int] | set[str]) -> None:
    found = Counter(finding.what for finding in walked(name, kind, sample=16).findings)
    assert (found if isinstance(wanted, dict) else set(found)) == wanted


def test_a_command_that_does_not_complete_again_is_found() -> None:
    """Ended between its two steps, it stumbles over the first one."""
    with forked_walk(f"{EXAMPLES}:NOT_AGAIN") as walk:
        assert [str(operation) for operation in walk.operations] == ["mkdir made", "mkdir file"]
        report = walk.run([Fault("kill", 1), Fault("kill", 2)])
    assert [(finding.what, finding.fault.at) for finding in report.findings] == [("again", 2)]
    assert "FileExistsError" in report.findings[0].detail


def test_a_finding_says_what_was_struck_and_what_came_of_it() -> None:
    report = walked("IN_PLACE", "kill")
    text = str(report)
    assert "different: kill at 2: write file (ended here): in place of what is to be written" in text
    assert text.startswith("2 of 2 steps over 2 operations")


def test_what_leaves_the_same_bytes_is_judged_once_and_told_of_each() -> None:
    """Before and after a file is made durable it holds the same."""
    report = walked("IN_HALVES", "kill")
    assert [(each.what, each.fault.at) for each in report.of("different")] == [("different", at) for at in (2, 3, 4)]
    assert report.num_alike == 1 and len(report.of("between")) == 3


def test_the_log_tells_what_an_ended_command_leaves(tmp_path: Path) -> None:
    start, undisturbed = tmp_path / "start", tmp_path / "undisturbed"
    start.mkdir()
    with Forked(f"{EXAMPLES}:IN_HALVES", tmp_path / "server") as runner:
        log = log_of(runner, start, undisturbed)
        faults = [Fault(kind, at, part=77, cut="mixed") for at in range(1, len(log) + 1) for kind in REPLAYED]
        for fault in (each for each in faults if each.can_hit(log[each.at - 1].op)):
            outcome = run_with_fault(runner, start, tmp_path / "ended", fault)
            tree, struck = left_by(fault, start, undisturbed / "folder", log)
            assert (tree, str(struck)) == (read_tree(outcome.folder), str(outcome.hit)), fault


def test_a_walk_by_the_log_finds_the_same() -> None:
    with forked_walk(f"{EXAMPLES}:UNSYNCED", replay=True) as walk:
        by_log = walk.run(walk.faults("kill", "tear", "power"))
    found = walked("UNSYNCED", "kill", "tear", "power").findings
    assert Counter(map(str, by_log.findings)) == Counter(map(str, found)) and found


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    with forked_walk(f"{EXAMPLES}:CAREFUL") as walk:
        whole = walk.faults("kill", "fail")
        sample = walk.faults("kill", "fail", sample=5, seed=3)
        assert sample == walk.faults("kill", "fail", sample=5, seed=3) != walk.faults("kill", "fail", sample=5, seed=4)
        assert len(sample) == 5 and set(sample) <= set(whole)
        assert walk.run(whole, seconds=0.0).num_steps < len(whole)


def test_several_steps_at_a_time_find_the_same() -> None:
    with forked_walk(f"{EXAMPLES}:IN_PLACE", jobs=2) as walk:
        report = walk.run(walk.faults("kill", "tear"))
    one = walked("IN_PLACE", "kill", "tear")
    assert report.num_steps == one.num_steps
    assert Counter(each.what for each in report.findings) == Counter(each.what for each in one.findings)


def test_any_program_can_be_walked(tmp_path: Path) -> None:
    """Not only forks of a warm process."""
    runner = Subprocesses([sys.executable, "-c", WRITING, "{folder}"], CAREFUL)
    (tmp_path / "start").mkdir()
    operations = count(runner, tmp_path / "start", tmp_path / "counting")
    assert [operation.op for operation in operations] == [Op.OPEN, Op.WRITE]
    outcome = run_with_fault(runner, tmp_path / "start", tmp_path / "faulty", Fault("fail", 2, "ENOSPC"))
    assert outcome.ended.status == 1 and "No space left" in outcome.ended.output
    assert outcome.hit is not None and str(outcome.hit) == "write file (ENOSPC)"
    walk = Walk([runner], tmp_path / "walk")
    assert {finding.what for finding in walk.run(walk.faults("kill")).findings} == {"between"}, "it writes again"


def test_what_cannot_be_walked_is_said() -> None:
    with pytest.raises(AssertionError, match="undisturbed, the command ends with 3"), forked_walk(f"{EXAMPLES}:BROKEN"):
        pass
    assert find_scenario(f"{EXAMPLES}:BROKEN") is BROKEN


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert set(capsys.readouterr().out.split()) == set(SCENARIOS)
    assert main([f"{EXAMPLES}:CAREFUL", "--kinds", "kill"]) == 0
    assert main([f"{EXAMPLES}:IN_PLACE", "--kinds", "kill,power", "--sample", "20"]) == 1
    assert "different" in capsys.readouterr().out
