"""What runs on the workers: the actor that holds the frozen models and turns one tar after the other into a shard."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import ray

from pea.cache import Cache
from pea.cache.completion import read_summary
from pea.cache.manifest import read_manifest
from pea.collect.events import ProgressEvent, Task
from pea.config import Config
from pea.corpus.corpus_names import CorpusName
from pea.errors import CacheError, ShardUnfinishedError
from pea.storage import configure
from pea.storage.leases import living_below
from pea.storage.processes import ProcessName, this_process


@dataclass(frozen=True)
class InFlight:
    """Event of a careful task: what is about to be worked on. The work waits until the driver has heard of it."""

    key: str
    """Key of the sample; empty when it could be several."""


@dataclass(frozen=True)
class DoneByAnother:
    """The only event of a part that another run has finished."""


@dataclass(frozen=True)
class BusyElsewhere:
    """The only event of a part that another run is working on."""

    owner: str
    """Who that is."""


ActorEvent = ProgressEvent | InFlight | DoneByAnother | BusyElsewhere


@ray.remote(max_restarts=0)
class TeacherActor:
    """Holds the frozen models on one device and collects one tar after the other."""

    def __init__(self, config: str, num_threads: int) -> None:
        self._config, self._num_threads = Config.model_validate_json(config), num_threads
        configure(self._config.storage_options())
        self._held: tuple[str, Any] | None = None
        """Corpus and its collector."""

    def place(self) -> tuple[str, ProcessName]:
        """Ray's id of the node that it runs on, and its process. Answers once the actor is placed and made."""
        return str(ray.get_runtime_context().get_node_id()), this_process()

    def collect(self, corpus: CorpusName, task: Task, ours: Collection[ProcessName]) -> Iterator[ActorEvent]:
        """Write one part of a shard; streams what has been done. Models are loaded when they are first needed.

        ``ours``: the processes of this run's actors, of which the dead may still hold a lease.
        """
        directory = self._config.cache_dir(corpus)
        cache = Cache(directory, read_manifest(directory))
        if is_finished(cache, task):
            yield DoneByAnother()
        elif (owner := owner_elsewhere(cache, task, ours)) is not None:
            yield BusyElsewhere(owner)
        else:
            yield from self._collect(corpus, cache, task)

    def _collect(self, corpus: CorpusName, cache: Cache, task: Task) -> Iterator[ActorEvent]:
        collector = self._collector(corpus)
        try:
            if task.careful:
                yield from with_keys(lambda in_flight: collector.collect(cache, task, in_flight))
            else:
                yield from collector.collect(cache, task)
        except CacheError:
            if not is_finished(cache, task):
                raise
            yield DoneByAnother()

    def _collector(self, corpus: CorpusName) -> Any:
        """That of a corpus. Corpora come one after the other: the former's models make room for the next one's."""
        if self._held is None or self._held[0] != corpus:
            self._held = None
            gc.collect()  # a UNet and its hooks hold each other
            self._held = corpus, self._load(corpus)
        return self._held[1]

    def _load(self, corpus: CorpusName) -> Any:
        import torch

        from pea.collect.collector import Collector
        from stages.command.device import pick_device

        torch.set_num_threads(self._num_threads)
        return Collector(self._config, corpus, pick_device(self._config.cache.run.device, "cache.run.device"))


def with_keys(work: Callable[[Callable[[str], None]], Iterator[ProgressEvent]]) -> Iterator[ProgressEvent | InFlight]:
    """What ``work`` yields, and between it an ``InFlight`` for each call of the function that ``work`` is given.

    The call returns when the consumer of this generator asks for the next item: under a back pressure of one item that
    is when the driver has the key, so that it outlives this process, whatever kills it next.
    """
    told: SimpleQueue[tuple[Any, Callable[[], object]]] = SimpleQueue()
    end = object()

    def in_flight(key: str) -> None:
        heard = threading.Event()
        told.put((InFlight(key), heard.set))
        heard.wait()

    def run() -> None:
        try:
            for event in work(in_flight):
                told.put((event, bool))
            told.put((end, bool))
        except BaseException as error:  # noqa: BLE001 - it belongs to the thread that reads
            told.put((error, bool))

    threading.Thread(target=run, name="pea-careful", daemon=True).start()
    while True:
        item, go_on = told.get()
        if item is end:
            return
        if isinstance(item, BaseException):
            raise item
        yield item
        go_on()


def is_finished(cache: Cache, task: Task) -> bool:
    """Whether somebody has finished the part since it was planned."""
    try:
        read_summary(cache.record_path(task.part))
    except ShardUnfinishedError:
        return False
    return True


def owner_elsewhere(cache: Cache, task: Task, ours: Collection[ProcessName]) -> str | None:
    """Who else is writing the part. Two may, and the first to finish wins; the other one's work would be wasted."""
    stores = living_below(cache.shard_dir(task.part.tar))
    owners = (owner for name, owner in stores.items() if name.startswith(f"{task.part.part}-"))
    return next((str(owner) for owner in owners if owner.process not in ours), None)
