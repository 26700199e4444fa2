"""The replay certificate: that the live teacher gave what the cache holds, on which samples, how exactly."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pea.cache import strict_json as must
from pea.errors import CacheError, LocationMissingError
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.location import Location

FILE_NAME = "certificate.json"
_MOST_BYTES = 16 << 20
_error = must.fields({"largest": must.number(0, 1e300), "mean": must.number(0, 1e300)})
_certificate = must.fields(
    {
        "digest": must.text(64),
        "samples": must.list_of(must.text(8192)),
        "errors": must.map_of(must.text(1024), _error, 1 << 16),
        "threshold": must.number(0, 1e300),
        "problems": must.list_of(must.text()),
        "environment": must.map_of(must.text(256), must.text(4096), 256),
    }
)
_document = must.fields({"certificate": _certificate, "sha256": must.text(64)})


@dataclass(frozen=True)
class Certificate:
    """What one replay found."""

    digest: str
    """Digest of the cache's identity."""
    samples: list[str]
    """Ids of the samples that were made again."""
    errors: dict[str, dict[str, float]]
    """Array or block -> ``largest`` and ``mean`` relative error of a row."""
    threshold: float
    """Largest relative error that passes."""
    problems: list[str]
    """What did not pass; empty: everything did."""
    environment: dict[str, str] = field(default_factory=dict)
    """Versions, device, date."""

    @property
    def passed(self) -> bool:
        """Whether everything was within the threshold."""
        return not self.problems


def write_certificate(directory: str | Path | Location, certificate: Certificate) -> None:
    """Store the certificate beside the manifest, in place of an older one.

    Raises:
        DiskFullError: no room.
        StorageError: it cannot be written.
    """
    (Location.parse(directory) / FILE_NAME).write_text(_to_text(asdict(certificate)))


def read_certificate(directory: str | Path | Location) -> Certificate | None:
    """The certificate of a cache, if there is one.

    Raises:
        CacheError: it is damaged.
        StorageError: it cannot be read.
    """
    path = Location.parse(directory) / FILE_NAME
    try:
        text = must.read_at_most(path, _MOST_BYTES).decode("utf-8")
        document = must.parse(text)
        _document(document, "certificate")
        if text != _to_text(document["certificate"]):
            raise ValueError("other bytes than were written")
    except LocationMissingError:
        return None
    except ValueError as error:
        remedy = "Delete it, and run `pea inspect verify` again."
        raise CacheError("the certificate is damaged", where=path, got=error, remedy=remedy) from None
    return Certificate(**document["certificate"])


def _to_text(fields: dict[str, Any]) -> str:
    return canonical_json({"certificate": fields, "sha256": sha256_text(canonical_json(fields))}) + "\n"
