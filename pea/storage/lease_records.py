"""What a lease looks like in its store, and whether its owner lives."""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pea.errors import AccessDeniedError, LocationMissingError
from pea.storage.location import Location
from pea.storage.processes import ProcessName, is_certainly_dead
from pea.storage.status import Status

EXPIRY_S = 300.0
"""How long a lease is good after its last renewal, where nothing else is said."""
_NAME = re.compile(r"(?P<name>.+)\.(?P<generation>0|[1-9][0-9]{0,8})\.lease")
_MAX_BYTES = 4096


class Owner(BaseModel):
    """Who holds a lease, as its object says."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    id: str = Field(max_length=64)
    """Unique to this holding."""
    process: ProcessName
    """The process that holds it."""
    what: str = Field(max_length=500)
    """What is being done, for people."""
    since: str = Field(max_length=64)
    """When it was taken, by the owner's clock, for people."""
    expiry_s: float = Field(ge=0.01, le=86_400)
    """How long the lease is good after its last renewal."""
    renewals: int = Field(ge=0)
    """How often it has been renewed."""

    def __str__(self) -> str:
        return f"{self.what} by {self.process} since {self.since}"


@dataclass(frozen=True)
class FoundLease:
    """A lease object in a listing."""

    place: Location
    generation: int
    status: Status


def living_owner(generations: list[FoundLease], place: Location) -> Owner | None:
    """The owner that the highest generation names, unless it has expired or its process is known to have ended."""
    if not generations:
        return None
    newest = max(generations, key=lambda found: found.generation)
    try:
        owner = Owner.model_validate_json(newest.place.read_bytes(0, _MAX_BYTES))
    except LocationMissingError:
        return None
    except ValidationError:
        owner = _unknown_owner()
    if is_certainly_dead(owner.process):
        return None
    age_s = _store_time(place.parent) - newest.status.modified_s
    clock_step_s = 0.0 if place.is_local else 1.0  # object stores keep times in whole seconds
    return owner if age_s <= owner.expiry_s + clock_step_s else None


def _unknown_owner() -> Owner:
    """Whose record cannot be read: respected until it expires."""
    process = ProcessName(host="an unknown machine", machine="", pid=0, started="")
    return Owner(id="", process=process, what="something", since="?", expiry_s=EXPIRY_S, renewals=0)


def _store_time(folder: Location) -> float:
    """The time by the store's clock; by this machine's, where nothing may be written."""
    probe = folder / f".clock.tmp-{uuid.uuid4().hex[:12]}"
    try:
        probe.write_bytes(b"")
        return probe.status().modified_s
    except (AccessDeniedError, LocationMissingError):
        return time.time()
    finally:
        with contextlib.suppress(AccessDeniedError):
            probe.delete()


def generations_of(place: Location) -> list[FoundLease]:
    """The objects of one lease."""
    return [found for name, found in leases_in(place.parent) if name == place.name]


def leases_in(folder: Location) -> list[tuple[str, FoundLease]]:
    """The objects of every lease in a folder, each with the name of its lease."""
    found = []
    for entry in folder.entries():
        match = _NAME.fullmatch(entry.name)
        if match and entry.status:
            each = FoundLease(folder / entry.name, int(match["generation"]), entry.status)
            found.append((match["name"], each))
    return found


def lease_object(place: Location, generation: int) -> Location:
    """Where a generation of a lease is kept."""
    return place.with_name(f"{place.name}.{generation}.lease")
