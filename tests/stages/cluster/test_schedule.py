"""Which tar goes where, and what a failure says: decisions that need no Ray."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from pea.cache import PartPlan
from pea.errors import CheckpointError, CorpusError, StorageError
from pea.storage import Location
from stages.cluster.node_trust import NUM_STRIKES, Node, NodeTrust
from stages.cluster.retries import MAX_LOST, Job
from stages.cluster.schedule import OTHER_NODE_PATIENCE_S, POSTPONED_S, Schedule

A, B, C = (Node(name * 8, f"{name} (10.0.0.1)") for name in "abc")


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def plan(clock: Clock) -> Callable[..., Schedule]:
    """A schedule of so many jobs, with actors 0, 1, ... on the given nodes."""

    def make(num_jobs: int, *nodes: Node, num_actors: int = 8) -> Schedule:
        jobs = [
            Job(PartPlan(f"t{number}", "p000", "whole", 0, 2, ()), Location.parse(f"/t{number}.tar"), max_tries=3)
            for number in range(num_jobs)
        ]
        schedule = Schedule(jobs, num_actors, NodeTrust(), clock)
        schedule.see_nodes({node.id for node in nodes})
        for number, node in enumerate(nodes):
            schedule.add(number, node)
        return schedule

    return make


def given(schedule: Schedule) -> dict[int, str]:
    """Actor -> tar, of everything that is handed out now."""
    found = {}
    while (assignment := schedule.next()) is not None:
        found[assignment.actor] = assignment.job.name
    return found


def fail(schedule: Schedule, actor: int, error: Exception | None = None) -> None:
    schedule.failed(actor, error or CorpusError("no such tar"), "no such tar")


def test_only_an_actor_that_runs_is_given_a_tar(plan: Callable[..., Schedule]) -> None:
    schedule = plan(3)
    assert given(schedule) == {} and schedule.num_useful == 3
    schedule.add(7, A)
    assert given(schedule) == {7: "t0"}
    schedule.finished(7)
    assert given(schedule) == {7: "t1"}


def test_no_more_actors_are_useful_than_tars_are_left(plan: Callable[..., Schedule]) -> None:
    schedule = plan(3, A, B, num_actors=2)
    assert schedule.num_useful == 2
    given(schedule)
    schedule.finished(0)
    given(schedule)
    schedule.finished(1)
    assert schedule.num_useful == 1 and not schedule.is_done
    schedule.finished(0)
    assert schedule.is_done and schedule.num_useful == 0


def test_the_tar_of_a_lost_node_goes_to_an_idle_actor(plan: Callable[..., Schedule]) -> None:
    schedule = plan(2, A, B)
    assert given(schedule) == {0: "t0", 1: "t1"}
    schedule.finished(1)
    schedule.lost(0)
    assert given(schedule) == {1: "t0"}
    assert schedule.lines == ["t0: the worker's node is gone; trying again"]


def test_lost_nodes_are_no_tries_but_end_some_time(plan: Callable[..., Schedule]) -> None:
    schedule = plan(1)
    for number in range(MAX_LOST + 1):
        assert not schedule.is_done
        schedule.add(number, A)
        assert given(schedule) == {number: "t0"}
        schedule.lost(number)
    assert schedule.is_done and "given up" in schedule.lines[-1]


def test_a_bad_tar_is_tried_on_another_node_before_it_counts(plan: Callable[..., Schedule]) -> None:
    schedule = plan(1, A, B)
    assert given(schedule) == {0: "t0"}
    fail(schedule, 0)
    assert "failed on a (10.0.0.1): no such tar; trying another node" in schedule.lines[0]
    assert given(schedule) == {1: "t0"}
    fail(schedule, 1)
    assert schedule.is_done and schedule.lines[-1] == "t0: no such tar; given up"


def test_a_bad_tar_on_the_only_node_is_a_bad_tar_at_once(plan: Callable[..., Schedule]) -> None:
    schedule = plan(1, A, A)
    given(schedule)
    fail(schedule, 0)
    assert schedule.is_done and schedule.lines == ["t0: no such tar; given up"]


def test_other_errors_are_tried_again_on_the_only_node(plan: Callable[..., Schedule]) -> None:
    schedule = plan(1, A)
    for _ in range(3):
        assert given(schedule) == {0: "t0"}
        fail(schedule, 0, OSError("flaky"))
    assert schedule.is_done and "given up" in schedule.lines[-1]


def test_storage_that_does_not_answer_is_tried_again(plan: Callable[..., Schedule]) -> None:
    schedule = plan(1, A)
    for _ in range(3):
        assert given(schedule) == {0: "t0"}
        fail(schedule, 0, StorageError("503"))
    assert schedule.is_done and "given up" in schedule.lines[-1]


def test_what_no_try_can_mend_ends_the_run_after_another_node_said_so_too(plan: Callable[..., Schedule]) -> None:
    schedule = plan(2, A, B)
    given(schedule)
    fail(schedule, 0, CheckpointError("no weights"))
    schedule.finished(1)
    assert given(schedule) == {1: "t0"}
    with pytest.raises(CheckpointError, match="no weights"):
        fail(schedule, 1, CheckpointError("no weights"))


def test_a_node_that_fails_what_others_read_is_left_out_by_name(plan: Callable[..., Schedule]) -> None:
    schedule = plan(20, A, B)
    for _ in range(40):
        for actor in given(schedule):
            if actor == 0:
                fail(schedule, 0)
            else:
                schedule.finished(actor)
    assert schedule.is_done, "B did all"
    assert not [line for line in schedule.lines if "given up" in line]
    [said] = [line for line in schedule.lines if "left out" in line]
    assert said.startswith("node a (10.0.0.1) is left out: 3 tars failed there that other nodes read")
    assert sum("trying another node" in line for line in schedule.lines) == NUM_STRIKES
    assert schedule.avoid() == {A.id}
    assert schedule.dispensable() == [0]


def test_a_suspected_node_takes_no_more_until_others_have_judged(plan: Callable[..., Schedule]) -> None:
    schedule = plan(20, A, B)
    given(schedule)
    for _ in range(NUM_STRIKES):
        fail(schedule, 0)
        given(schedule)
    assert schedule.num_useful == 8 and given(schedule) == {}, "B is busy, A waits"
    schedule.finished(1)
    assert given(schedule) == {1: "t0"}, "what failed elsewhere comes first"


def test_a_success_clears_a_node(plan: Callable[..., Schedule]) -> None:
    """Over days, storage stutters on every node some time."""
    schedule = plan(60, A, B)
    for number in range(60):
        handed = given(schedule)
        if 0 in handed and number % 3 == 0:
            fail(schedule, 0, OSError("stuttered"))
            handed.pop(0)
        for actor in handed:
            schedule.finished(actor)
    assert not [line for line in schedule.lines if "left out" in line]


def test_bad_nodes_do_not_judge_each_others_tars(plan: Callable[..., Schedule]) -> None:
    schedule = plan(12, A, B, C)
    busy = given(schedule)
    for _ in range(20):
        for actor in list(busy):
            if actor != 2:
                fail(schedule, actor)
                del busy[actor]
        busy |= given(schedule)
    assert not [line for line in schedule.lines if "given up" in line], "C, busy with its first tar, is waited for"
    while not schedule.is_done:
        for actor in busy:
            if actor == 2:
                schedule.finished(actor)
            else:
                fail(schedule, actor)
        busy = given(schedule)
    assert not [line for line in schedule.lines if "given up" in line]
    assert sum("is left out" in line for line in schedule.lines) == 2


def test_all_nodes_bad_ends(plan: Callable[..., Schedule]) -> None:
    schedule = plan(6, A, B)
    for _ in range(100):
        for actor in given(schedule):
            fail(schedule, actor)
    assert schedule.is_done
    assert sum("given up" in line for line in schedule.lines) == 6


def test_the_only_actor_moves_to_another_node_for_what_failed(plan: Callable[..., Schedule], clock: Clock) -> None:
    schedule = plan(2, A, num_actors=1)
    schedule.see_nodes({A.id, B.id})
    given(schedule)
    fail(schedule, 0)
    assert given(schedule) == {0: "t1"} and schedule.dispensable() == [], "there is other work first"
    schedule.finished(0)
    assert given(schedule) == {}
    assert schedule.avoid() == {A.id} and schedule.dispensable() == [0]
    schedule.remove(0)
    assert schedule.num_running == 0 and schedule.num_useful == 1
    schedule.add(1, B)
    assert given(schedule) == {1: "t0"}


def test_another_node_that_never_has_a_place_is_waited_for_for_a_while_only(
    plan: Callable[..., Schedule], clock: Clock
) -> None:
    schedule = plan(1, A, num_actors=1)
    schedule.see_nodes({A.id, B.id})
    given(schedule)
    fail(schedule, 0)
    clock.now += OTHER_NODE_PATIENCE_S - 1
    assert given(schedule) == {} and not schedule.is_done
    clock.now += 2
    assert given(schedule) == {} and schedule.is_done
    assert schedule.lines[-1] == "t0: no such tar; given up"


def test_a_busy_actor_elsewhere_is_waited_for(plan: Callable[..., Schedule], clock: Clock) -> None:
    schedule = plan(2, A, B)
    given(schedule)
    fail(schedule, 0)
    clock.now += 100 * OTHER_NODE_PATIENCE_S
    assert given(schedule) == {}
    schedule.finished(1)
    assert given(schedule) == {1: "t0"}


def test_a_sample_that_kills_its_process_is_left_out_on_whatever_nodes(plan: Callable[..., Schedule]) -> None:
    schedule = plan(1)
    jobs = []
    for number in range(3):
        schedule.add(2 * number, A)
        schedule.add(2 * number + 1, B)
        schedule.see_nodes({A.id, B.id})
        assignment = schedule.next()
        assert assignment is not None
        jobs.append(assignment.job)
        assignment.job.key_in_flight = "0007"
        schedule.died(assignment.actor)
        for other in {2 * number, 2 * number + 1} - {assignment.actor}:
            schedule.remove(other)
    assert jobs[0].task().skip == ("0007",)
    schedule.add(9, A)
    assert given(schedule) == {9: "t0"}
    schedule.finished(9)
    assert schedule.is_done


def test_a_part_that_another_run_is_busy_with_is_looked_at_again(plan: Callable[..., Schedule], clock: Clock) -> None:
    schedule = plan(2, A)
    assert given(schedule) == {0: "t0"}
    schedule.postpone(0, "somebody")
    assert given(schedule) == {0: "t1"}
    schedule.finished(0)
    assert given(schedule) == {} and not schedule.is_done
    clock.now += POSTPONED_S
    assert given(schedule) == {0: "t0"}
    schedule.done_by_another(0)
    assert schedule.is_done


@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_every_good_tar_is_done(plan: Callable[..., Schedule], clock: Clock, seed: int) -> None:
    """Nodes come, go, die with their tars, or see no disk; as long as a good one stays, nothing stands still."""
    chance = random.Random(seed)
    nodes = [Node(f"n{number}", f"node {number}") for number in range(4)]
    blind = set(chance.sample([node.id for node in nodes], chance.randrange(4)))
    bad_tars = {f"t{number}" for number in range(12) if chance.random() < 0.1}
    schedule = plan(12, num_actors=chance.randint(1, 5))
    alive: dict[int, Node] = {}
    busy: dict[int, str] = {}
    done: set[str] = set()
    for step in range(3000):
        if schedule.is_done:
            break
        clock.now += 1
        schedule.see_nodes({node.id for node in nodes})
        for actor in schedule.dispensable():
            schedule.remove(actor)
            del alive[actor]
        roomy = [node for node in nodes if node.id not in schedule.avoid()]
        if roomy and schedule.num_running < schedule.num_useful and chance.random() < 0.7:
            alive[step] = chance.choice(roomy)
            schedule.add(step, alive[step])
        busy |= given(schedule)
        for actor, tar in list(busy.items()):
            if chance.random() < 0.5:
                continue
            del busy[actor]
            if chance.random() < 0.05:
                schedule.lost(actor)
                del alive[actor]
            elif alive[actor].id in blind or tar in bad_tars:
                fail(schedule, actor)
            else:
                schedule.finished(actor)
                done.add(tar)
    assert schedule.is_done, "nothing stands still"
    assert done == {f"t{number}" for number in range(12)} - bad_tars
