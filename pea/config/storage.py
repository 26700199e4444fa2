"""How the buckets of the URLs in a configuration are reached."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from pea.config.section import Section
from pea.storage import Location, StorageOptions


def _is_url(text: str) -> str:
    if Location.parse(text).is_local:
        raise ValueError("not the beginning of a URL, such as s3://bucket")
    return text.rstrip("/")


StoreUrl = Annotated[str, AfterValidator(_is_url)]
"""Beginning of a URL, at whole segments: ``s3://bucket`` or ``s3://bucket/folder``."""


class StoreConfig(Section):
    """How URLs with one beginning are reached; credentials are never written here."""

    endpoint: str | None = Field(default=None, pattern=r"^https?://[^/?#@\s]+(/[^?#@\s]*)?$")
    """URL of the server, where it is not the cloud's own; null: as the environment says (``AWS_ENDPOINT_URL``)."""
    region: str | None = None
    """Region of an S3 bucket; null: as the environment or the profile says."""
    anonymous: bool = False
    """Ask without credentials, as public buckets want it."""
    profile: str | None = None
    """AWS profile whose credentials and region are taken; null: as the environment says (``AWS_PROFILE``)."""

    def options(self) -> StorageOptions:
        """The same for ``pea.storage.configure``."""
        return StorageOptions(self.endpoint, self.region, self.anonymous, self.profile)
