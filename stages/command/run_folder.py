"""The run folder of a command: itself where it is on a disk, a published copy where it is in a bucket.

A command works on files. Of a ``run_dir`` that is a URL, caches and tars are read and written in the bucket itself;
everything else (states, adapter, logs, images, reports) is a copy below the work folder (`pea.storage.work`): fetched
before the command, published after it and, by what trains, at each saved state.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pea.config import Config
from pea.config.inputs import with_inputs_fetched
from pea.errors import ConfigError
from pea.storage import Location
from pea.storage.leases import Lease, take
from pea.storage.mirror import Mirror
from pea.storage.work import folder_for

_IN_PLACE = ("cache", "corpora", "text_states")
_OF_A_JOB = "working_dir_files"
"""The folder in which Ray keeps the copies that submitted jobs run in, and clears them."""
_OPEN: dict[Path, tuple[Mirror, Lease]] = {}
"""Copies that this process works on and publishes, by their folder."""


def _copy_of(remote: Location, *, publishes: bool) -> Mirror:
    """The copy that a command works on: writers have one in turn, those who only read another, beside them.

    Each process that trains on a machine has its own; the first one publishes.
    """
    rank = os.environ.get("LOCAL_RANK", "0")
    kind = ("runs" if publishes else "runs-read") + ("" if rank == "0" else f"-{rank}")
    return Mirror(remote, folder_for(kind, remote), left_out=_IN_PLACE)


def state_of(config: Config) -> tuple[Path, Mirror | None]:
    """The folder in which a pipeline notes its stages, and where it is in a bucket, what publishes it.

    Raises:
        StorageError: the bucket cannot be read.
    """
    remote = config.run_dir
    if not isinstance(remote, Location):
        return remote / "state", None
    mirror = Mirror(remote / "state", folder_for("pipelines", remote))
    mirror.fetch()
    return mirror.folder, mirror


@contextmanager
def working(config: Config, what: str, *, publishes: bool = True) -> Iterator[Config]:
    """The configuration with paths of this machine in place of URLs; what the block leaves is published at its end.

    ``what``: the command, for the message that another one gets which wants the same run folder. A command that only
    reads (``publishes`` is false) takes no lease and publishes nothing.

    Raises:
        ConfigError: the run folder would be cleared with the copy of the project that a submitted job runs in.
        LeaseHeldError: another command is writing to the same run folder in a bucket.
        StorageError: a store cannot be read or written.
    """
    remote = config.run_dir
    _refuse_copy_of_a_job(config)
    if not isinstance(remote, Location):
        yield with_inputs_fetched(config)
        return
    publishes = publishes and os.environ.get("RANK", "0") == "0"
    mirror = _copy_of(remote, publishes=publishes)
    here = config.model_copy(update={"run_dir": mirror.folder, "cache_root": config.cache_root or remote / "cache"})
    if not publishes:
        mirror.fetch()
        yield with_inputs_fetched(here)
        return
    with take(remote / "run", what) as lease:
        mirror.fetch()
        _OPEN[mirror.folder] = mirror, lease
        try:
            yield with_inputs_fetched(here)
            publish_so_far(here)
        finally:
            del _OPEN[mirror.folder]


def _refuse_copy_of_a_job(config: Config) -> None:
    """What is relative lies, in a job that was submitted with ``--working-dir``, in a copy that Ray clears."""
    if _OF_A_JOB not in Path.cwd().parts:
        return
    places = {"run_dir": config.run_dir, "cache_root": config.cache_root}
    for name, place in places.items():
        if isinstance(place, Path) and not place.is_absolute():
            raise ConfigError(
                "a submitted job runs in a temporary copy of the folder, and this would go with it",
                where=name,
                expected="an absolute path on storage that every node sees, or a URL",
                got=place,
            )


def publish_so_far(config: Config) -> None:
    """Publish what a run has left until now; nothing where its folder is on a disk.

    Raises:
        LeaseLostError: somebody else may be writing to the run folder.
        StorageError: the bucket cannot be read or written.
    """
    if config.run_dir in _OPEN:
        mirror, lease = _OPEN[config.run_dir]
        lease.confirm()
        mirror.publish()


def need_disk(config: Config, command: str) -> None:
    """Refuse a run folder in a bucket, for a command that keeps whole run folders below it.

    Raises:
        ConfigError: it is in a bucket.
    """
    if isinstance(config.run_dir, Location):
        raise ConfigError(
            f"{command} needs a run folder on a disk", where="run_dir", expected="a path", got=config.run_dir
        )
