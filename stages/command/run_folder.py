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
from pea.storage.leases import take
from pea.storage.mirror import Mirror
from pea.storage.work import folder_for

_IN_PLACE = ("cache", "corpora", "text_states")
_OPEN: dict[Path, Mirror] = {}
"""Copies that this process works on, by their folder."""


def mirror_of(config: Config) -> Mirror | None:
    """The copy of a run folder in a bucket; None: it is on a disk."""
    remote = config.run_dir
    if not isinstance(remote, Location):
        return None
    rank = os.environ.get("LOCAL_RANK", "0")  # each process that trains on a machine has a copy of its own
    return Mirror(remote, folder_for("runs" if rank == "0" else f"runs-{rank}", remote), left_out=_IN_PLACE)


@contextmanager
def working(config: Config, what: str, *, publishes: bool = True) -> Iterator[Config]:
    """The configuration with paths of this machine in place of URLs; what the block leaves is published at its end.

    ``what``: the command, for the message that another one gets which wants the same run folder. A command that only
    reads (``publishes`` is false) takes no lease and publishes nothing.

    Raises:
        LeaseHeldError: another command is writing to the same run folder in a bucket.
        StorageError: a store cannot be read or written.
    """
    mirror = mirror_of(config)
    if mirror is None:
        yield with_inputs_fetched(config)
        return
    here = config.model_copy(
        update={"run_dir": mirror.folder, "cache_root": config.cache_root or mirror.remote / "cache"}
    )
    if not publishes or os.environ.get("RANK", "0") != "0":
        mirror.fetch()
        yield with_inputs_fetched(here)
        return
    with take(mirror.remote / "run", what) as lease:
        mirror.fetch()
        _OPEN[mirror.folder] = mirror
        try:
            yield with_inputs_fetched(here)
            lease.confirm()
            mirror.publish()
        finally:
            del _OPEN[mirror.folder]


def publish_so_far(config: Config) -> None:
    """Publish what a run has left until now; nothing where its folder is on a disk.

    Raises:
        StorageError: the bucket cannot be read or written.
    """
    if mirror := _OPEN.get(config.run_dir):
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
