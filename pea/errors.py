"""Every exception that a user of PEA-Cache can meet, and how one is warned.

Each leaf also inherits the builtin that fits, so that ``except OSError`` keeps working.
"""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from pea.copies import as_stored
from pea.foreign_text import visible

_BETWEEN = ("pea", "diffusers", "torch")
"""Packages whose code lies between a user's line and a warning of ours."""
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def explain(
    what: str,
    *,
    where: object = None,
    expected: object = None,
    got: object = None,
    remedy: str | None = None,
) -> str:
    """Compose the one line that a user reads: what, where, expected, got, what to do."""
    parts = [what if where is None else f"{where}: {what}"]
    if expected is not None:
        parts.append(f"expected {expected}")
    if got is not None:
        parts.append(f"got {got}")
    line = "; ".join(parts)
    if remedy is not None:
        line = f"{line} {remedy}" if line.endswith((".", "…")) else f"{line}. {remedy}"
    return visible(" ".join(line.split()))


class PeaError(Exception):
    """Base of every error that PEA-Cache raises on purpose; ``str()`` is always one line.

    Of a copy of what lies in a store, it names the place in the store; what is wrong with a disk names that disk.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        got: object = None,
        remedy: str | None = None,
    ) -> None:
        message = explain(what, where=where, expected=expected, got=got, remedy=remedy)
        self.message = message if isinstance(self, StorageError | DiskFullError) else as_stored(message)
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive pickling between processes whatever the builtin parent does with its arguments."""
        return _restore, (type(self), dict(self.__dict__))


def _restore(kind: type[PeaError], state: dict[str, Any]) -> PeaError:
    error = kind(state["message"])
    error.__dict__.update(state)
    return error


class ConfigError(PeaError, ValueError):
    """The configuration file or an override is wrong; the message lists every problem."""

    def __init__(self, what: str, *, problems: Sequence[str] = (), **details: Any) -> None:
        self.problems = tuple(problems)
        super().__init__(what, **details)


class CorpusError(PeaError, ValueError):
    """A corpus tar is missing, truncated, or unusable as a whole."""


class TarUnusableError(CorpusError):
    """One tar is missing, damaged or unreadable; says nothing about the others of its corpus."""


class CheckpointError(PeaError, OSError):
    """A model folder is missing, incomplete, or of a kind that is not supported."""


class IdentityError(PeaError, ValueError):
    """A cache was made from something else than what is asked of it; ``differences`` holds each field."""

    def __init__(self, what: str, *, differences: Sequence[Any] = (), **details: Any) -> None:
        self.differences = tuple(differences)
        super().__init__(what, **details)


class CacheError(PeaError, ValueError):
    """A cache directory is missing, of another format version, or used in a way that it does not allow."""


class ShardUnfinishedError(CacheError):
    """A shard has no completion record: its writer has not finished."""


class ShardDamagedError(CacheError):
    """A finished shard's files are not what its completion record says."""


class DiskFullError(PeaError, OSError):
    """The disk (or the quota, or the file size limit) is full."""


class LocationError(PeaError, ValueError):
    """A path or URL is not one that the storage knows, or it points where it must not."""


class StorageError(PeaError, OSError):
    """A disk or an object store cannot be read or written; says nothing about what is stored there."""


class LocationMissingError(StorageError, FileNotFoundError):
    """Nothing is stored at a location."""


class LocationExistsError(StorageError, FileExistsError):
    """Something is stored already where something new was to be created."""


class AccessDeniedError(StorageError, PermissionError):
    """The storage refuses: no credentials, wrong ones, or no right to do this."""


class ContentChangedError(StorageError):
    """A file or object was replaced or altered while it was read."""


class LeaseHeldError(StorageError, BlockingIOError):
    """Somebody else is busy with what a lease was asked for."""


class LeaseLostError(StorageError):
    """A lease that was held has been taken over by somebody else, or could not be renewed in time."""


class DeviceError(PeaError, RuntimeError):
    """The requested device is not there or cannot do what is asked."""


class TrainingError(PeaError, RuntimeError):
    """Training cannot go on (for example: the loss is not finite)."""


class EvaluationError(PeaError, RuntimeError):
    """An evaluation cannot be made or did not finish."""


def warn(message: str) -> None:
    """Warn whoever uses the library: the line of code that is shown is theirs, not one in here or in diffusers."""
    frame, level = sys._getframe(1), 2  # noqa: SLF001  (skip_file_prefixes is of Python 3.12)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(as_stored(message), stacklevel=level)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one that caused it, says that no more bytes can be stored."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _OUT_OF_SPACE:
            return True
        seen = seen.__cause__ or seen.__context__
    return False
