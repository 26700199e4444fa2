"""Leases: what tells a living writer from a dead one, the same on a disk and in a bucket.

A lease is a small object ``<name>.<generation>.lease``. Whoever creates it owns what it stands for, and renews it by
writing it again with the next count. The highest generation counts. An expired lease is taken over by *creating* the
next generation, so that of several takers one wins, without conditional writes (which a disk has not).

**When a lease is expired** is judged by the store's own clock alone: the age of the object is the time of its last
writing against the time of a probe that the observer writes beside it. No machine's clock is compared with another's.
(Watching the count stand still for the whole expiry would need no probe, but make every restart wait that long.) An
owner that was a process of this machine and has ended is recognised at once: a killed command can be started again.

**When an owner has lost it**: it sees a higher generation, or its own object gone, or it could not confirm the lease
for a whole expiry by its own clock, which goes on while the machine sleeps. The last alone would do: the owner counts
from before its last successful writing, so it gives up before any observer may take over. ``confirm`` is to be called
right before a publication; after it, the owner has the whole expiry to publish.

Who clears what a dead writer left first takes over its lease.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from pea.errors import LeaseHeldError, LeaseLostError, StorageError
from pea.storage.lease_records import (
    EXPIRY_S,
    FoundLease,
    Owner,
    generations_of,
    lease_object,
    leases_in,
    living_owner,
)
from pea.storage.location import Location
from pea.storage.processes import this_process

PERIOD_S = 60.0
"""How often a lease is renewed, where nothing else is said."""


class Lease:
    """A lease that is held, and renewed by a thread of its own until ``release`` or the end of the ``with`` block."""

    def __init__(self, place: Location, owner: Owner, generation: int, period_s: float, confirmed: float) -> None:
        """Use ``take``."""
        self.place, self.generation = place, generation
        self._owner, self._period_s, self._confirmed = owner, period_s, confirmed
        self._pid, self._why_lost = os.getpid(), ""
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="pea-lease", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether it is known to be lost, without asking the store."""
        return bool(self._why_lost) or _now() - self._confirmed > self._owner.expiry_s

    def confirm(self) -> None:
        """Renew the lease now; to be called before something is published.

        Raises:
            LeaseLostError: somebody else may own what it stood for.
            StorageError: the store cannot be asked.
        """
        if os.getpid() != self._pid:
            raise LeaseLostError("the lease belongs to the process that forked this one", where=self.place)
        with self._lock:
            if not self._ended.is_set():
                self._renew()
            why = self._why_lost or ("it was released" if self._ended.is_set() else "")
        if why:
            raise LeaseLostError("the lease is lost", where=self.place, got=why, remedy="Run the same command again.")

    def release(self) -> None:
        """Give it back; harmless when repeated, and in a forked process."""
        if os.getpid() != self._pid or self._ended.is_set():
            return
        self._ended.set()
        with self._lock:
            if not self.lost:
                self._object.delete()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
        except StorageError:
            if error is None:
                raise

    @property
    def _object(self) -> Location:
        return lease_object(self.place, self.generation)

    def _keep(self) -> None:
        while not self._ended.wait(self._period_s * random.uniform(0.9, 1.0)) and not self._why_lost:
            with self._lock:
                if self._ended.is_set():
                    return
                try:
                    self._renew()
                except StorageError:
                    continue  # tried again; lost when the expiry passes

    def _renew(self) -> None:
        """Write the object again, and see whether it is still the one that counts."""
        started = _now()
        if started - self._confirmed > self._owner.expiry_s:
            self._why_lost = self._why_lost or f"it could not be renewed for {self._owner.expiry_s:g} s"
        if self._why_lost or not self._counts():
            return
        renewed = self._owner.model_copy(update={"renewals": self._owner.renewals + 1})
        self._object.write_bytes(renewed.model_dump_json().encode())
        self._owner = renewed
        if self._counts():
            self._confirmed = started
        else:
            self._object.delete()  # written in somebody else's time

    def _counts(self) -> bool:
        """Whether its object is there and none of a higher generation."""
        highest = max((found.generation for found in generations_of(self.place)), default=-1)
        if highest != self.generation:
            taken = highest > self.generation
            self._why_lost = "somebody else took it over" if taken else "its object is gone"
        return not self._why_lost


def take(
    place: Location,
    what: str,
    *,
    period_s: float = PERIOD_S,
    expiry_s: float = EXPIRY_S,
    wait_s: float = 0.0,
) -> Lease:
    """Take the lease of ``place`` (a folder, and a name in it), or take over an expired one.

    ``what``: what will be done, for the message that others get. ``wait_s``: how long to wait for a living owner.

    Raises:
        LeaseHeldError: somebody else holds it.
        StorageError: the store cannot be read or written.
    """
    assert 0 < period_s < expiry_s
    give_up = _now() + wait_s
    while True:
        before = generations_of(place)
        owner = living_owner(before, place)
        if owner is None:
            lease = _create(place, before, what, period_s, expiry_s)
            if lease is not None:
                return lease
        elif _now() >= give_up:
            remedy = f"Wait for it, or end it; the lease of a dead owner expires after {owner.expiry_s:g} s."
            raise LeaseHeldError("somebody else is busy with it", where=place, got=owner, remedy=remedy)
        pause_s = 0.05 if owner is None else min(1.0, expiry_s / 10)
        time.sleep(random.uniform(0.2, 1.0) * pause_s)


def living_below(folder: Location) -> Mapping[str, Owner]:
    """Every living owner of a lease in a folder, by the name of the lease."""
    found: dict[str, list[FoundLease]] = {}
    for name, each in leases_in(folder):
        found.setdefault(name, []).append(each)
    owners = {name: living_owner(each, folder / name) for name, each in found.items()}
    return {name: owner for name, owner in owners.items() if owner is not None}


def _create(place: Location, before: list[FoundLease], what: str, period_s: float, expiry_s: float) -> Lease | None:
    """The lease of the next generation, unless somebody else was quicker or an owner thought dead moved again."""
    generation = max((found.generation for found in before), default=-1) + 1
    owner = Owner(
        id=uuid.uuid4().hex,
        process=this_process(),
        what=what[:500],
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        expiry_s=expiry_s,
        renewals=0,
    )
    started, own = _now(), lease_object(place, generation)
    try:
        own.create_bytes(owner.model_dump_json().encode())
    except FileExistsError:
        return None
    try:
        # Both of two takers write first and look then, so at least one of them sees the other.
        others = [found for found in generations_of(place) if found.generation != generation]
        if any(found not in before for found in others):
            own.delete()
            return None
        for found in others:
            found.place.delete()
    except StorageError:
        with contextlib.suppress(StorageError):
            own.delete()
        raise
    return Lease(place, owner, generation, period_s, started)


def _now() -> float:
    """Seconds by a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
