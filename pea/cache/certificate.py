"""The replay certificate: that the live teacher gave what the cache holds, on which samples, how exactly."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pea.errors import CacheError
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.durable import atomic_write

FILE_NAME = "certificate.json"


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


def write_certificate(directory: Path, certificate: Certificate) -> None:
    """Store the certificate beside the manifest, in place of an older one."""
    atomic_write(directory / FILE_NAME, _to_text(asdict(certificate)).encode())


def read_certificate(directory: Path) -> Certificate | None:
    """The certificate of a cache, if there is one.

    Raises:
        CacheError: it is damaged.
    """
    path = directory / FILE_NAME
    try:
        text = path.read_bytes().decode("utf-8")
        fields: dict[str, Any] = json.loads(text)["certificate"]
        if text == _to_text(fields):
            return Certificate(**fields)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise CacheError("the certificate is damaged", where=path, remedy="Delete it, and run `pea inspect verify` again.")


def _to_text(fields: dict[str, Any]) -> str:
    return canonical_json({"certificate": fields, "sha256": sha256_text(canonical_json(fields))}) + "\n"
