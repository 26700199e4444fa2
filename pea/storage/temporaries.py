"""What dead writers of single files left, under names that nobody reads. Such files have no lease: their age tells."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from pea.errors import LocationMissingError
from pea.storage.durable import TEMPORARY, is_temporary
from pea.storage.failures import translated
from pea.storage.location import Location

_DEAD_AFTER_S = 600.0


def left_by_the_dead(folder: Location, names: Iterable[str]) -> Iterator[str]:
    """Temporary files, of some names, older than ``_DEAD_AFTER_S``: writing one takes a moment. Buckets have none.

    Raises:
        StorageError: the age of one cannot be read.
    """
    for name in names if folder.is_local else ():
        if not is_temporary(PurePosixPath(name).name):
            continue
        try:
            age_s = time.time() - (folder / name).status().modified_s
        except LocationMissingError:
            continue  # it was one of a living writer
        if age_s > _DEAD_AFTER_S:
            yield name


def clear_old_temporaries(folder: Location, *, recursive: bool = False) -> None:
    """Delete what dead writers of single files left in a folder. Harmless where there is none.

    Raises:
        StorageError: it cannot be listed, or one cannot be deleted.
    """
    if not folder.is_local:
        return
    root = folder.local_path
    with translated("cannot list", folder):
        found = list((root.rglob if recursive else root.glob)(f".*{TEMPORARY}*"))
    for name in left_by_the_dead(folder, (str(path.relative_to(root)) for path in found)):
        (folder / name).delete_tree()
