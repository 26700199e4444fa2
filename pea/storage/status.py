"""What a store says about a file without its content."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """Size and version of a stored file; equal versions mean equal content, as far as the store can tell."""

    size_bytes: int
    """Length of the content."""
    version: str
    """ETag of an object; size, time of change and inode of a file on disk."""
    modified_s: float
    """When the content was written, in seconds since 1970 by the clock of the store."""


@dataclass(frozen=True)
class Entry:
    """One name in a listing."""

    name: str
    """Path relative to the folder that was listed, with ``/`` between segments."""
    status: Status | None
    """None for a folder."""
