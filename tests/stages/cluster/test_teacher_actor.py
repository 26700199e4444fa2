"""What a worker looks at before it starts a tar, and how it says what it is about to work on."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

from pea.cache import Cache
from pea.collect.events import Done, ProgressEvent, Started, Task
from pea.storage import Location
from pea.storage.leases import take
from pea.storage.processes import this_process
from stages.cluster.teacher_actor import InFlight, TeacherActor, is_finished, owner_elsewhere, with_keys
from tests.cache_helpers import CacheMaker, identity


@pytest.fixture
def cache(make_cache: CacheMaker) -> Cache:
    """One of two tars, of which the first is finished."""
    cache = Cache.create_or_resume(make_cache.directory, identity(("a", "b")))
    make_cache.write(cache, cache.part_plan("a", "p000"))
    return cache


def task_of(cache: Cache, tar: str) -> Task:
    return Task(cache.part_plan(tar, "p000"), Location.parse("/nowhere.tar"))


def test_a_part_that_was_finished_meanwhile_is_seen(cache: Cache) -> None:
    assert is_finished(cache, task_of(cache, "a"))
    assert not is_finished(cache, task_of(cache, "b"))


def test_who_else_writes_a_part_is_seen_but_not_our_own_dead(cache: Cache) -> None:
    folder, task = cache.shard_dir("b"), task_of(cache, "b")
    assert owner_elsewhere(cache, task, ()) is None
    with take(folder / "p001-123456789abc.zarr", "writing another part"):
        assert owner_elsewhere(cache, task, ()) is None
    with take(folder / "p000-123456789abc.zarr", "writing b/p000"):
        assert "writing b/p000 by process" in str(owner_elsewhere(cache, task, ()))
        assert owner_elsewhere(cache, task, {this_process()}) is None
    assert owner_elsewhere(cache, task, ()) is None


def test_events_come_in_order_and_work_goes_on_when_the_next_is_asked_for() -> None:
    reached = list[str]()

    def work(in_flight: Callable[[str], None]) -> Iterator[ProgressEvent]:
        yield Started(1)
        reached.append("before")
        in_flight("k")
        reached.append("after")
        yield Done(1)

    events = with_keys(work)
    assert next(events) == Started(1)
    assert next(events) == InFlight("k")
    assert reached == ["before"], "nobody has taken the key yet"
    assert next(events) == Done(1) and reached == ["before", "after"]
    assert list(events) == []


def test_an_error_comes_after_the_events_before_it() -> None:
    def work(in_flight: Callable[[str], None]) -> Iterator[ProgressEvent]:
        in_flight("k")
        yield Started(1)
        raise ValueError("of the work")

    events = with_keys(work)
    assert [next(events), next(events)] == [InFlight("k"), Started(1)]
    with pytest.raises(ValueError, match="of the work"):
        next(events)


class Models:
    """Hold themselves, as a UNet does by its hooks."""

    def __init__(self) -> None:
        self.itself = self


def test_the_models_of_one_corpus_are_given_up_before_those_of_the_next_are_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = TeacherActor.__ray_metadata__.modified_class
    loaded, alive = list[weakref.ref[Models]](), list[int]()

    def load(_self: object, _corpus: str) -> Models:
        alive.append(sum(each() is not None for each in loaded))
        models = Models()
        loaded.append(weakref.ref(models))
        return models

    monkeypatch.setattr(plain, "_load", load)
    actor = plain.__new__(plain)
    actor._held = None
    gc.freeze()  # what other tests have made need not be looked through
    try:
        for corpus in ("parallel", "parallel", "culture", "culture", "parallel"):
            assert actor._collector(corpus) is loaded[-1]()
    finally:
        gc.unfreeze()
    assert alive == [0, 0, 0]
