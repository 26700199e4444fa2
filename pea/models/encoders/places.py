"""Where an adapter's text encoder is found again, from the adapter's configuration alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pea.errors import CheckpointError
from pea.storage import Location
from pea.storage.hub import is_hub_id

PLACES = "places"
"""Key in an adapter's record of its encoder: folders, where it was not of the hub; not published."""
_GIVE = "Give the text encoder: PEAPrompt.from_pretrained(adapter, encoder), or --encoder."


def record_with_places(record: Mapping[str, Any], places: Sequence[str | Path | Location]) -> dict[str, Any]:
    """An encoder's record and, for what is not of the hub, where it is on this machine."""
    own = without_places(record)
    if all(map(is_hub_id, _names(own))):
        return own
    return own | {PLACES: [_lasting(place) for place in places]}


def _lasting(place: str | Path | Location) -> str:
    """What names the same from any working directory."""
    if is_hub_id(place) or isinstance(place, Location):
        return str(place)
    return str(Path(place).resolve())


def without_places(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as it may be published: folders of one machine say nothing to others."""
    return {name: value for name, value in record.items() if name != PLACES}


def recorded_encoder(record: Mapping[str, Any] | None, adapter: object) -> list[str | Path | Location]:
    """Folders, URLs, or `org/name@revision`, of the encoder (or two) that `adapter` was trained with.

    Folders and URLs in a record that comes from the hub are somebody else's, and are not looked for.

    Raises:
        CheckpointError: it does not say, or names a folder that is not here.
    """
    if not record:
        raise CheckpointError("the adapter does not say which text encoder is its own", where=adapter, remedy=_GIVE)
    names = _names(record)
    if all(map(is_hub_id, names)):
        return list(names)
    named = [] if is_hub_id(str(adapter)) else [str(place) for place in record.get(PLACES) or []]
    places = [place if is_hub_id(place) else Location.parse(place) for place in named]
    missing = [place for place in places if isinstance(place, Location) and not place.exists()]
    if missing or not places:
        raise CheckpointError(
            "the adapter's text encoder is not here",
            where=adapter,
            expected=" and ".join(names),
            got="no such folder" if places else "a name without a place",
            remedy=_GIVE,
        )
    return [place.local_path if isinstance(place, Location) and place.is_local else place for place in places]


def _names(record: Mapping[str, Any]) -> list[str]:
    return str(record.get("name", "")).split(" + ")
