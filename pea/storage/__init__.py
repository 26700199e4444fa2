"""Locations on disks and in object stores: read, written whole, published, leased, digested."""

from pea.storage.location import Location
from pea.storage.options import RetryPolicy, StorageOptions, configure
from pea.storage.status import Entry, Status

__all__ = ["Entry", "Location", "RetryPolicy", "Status", "StorageOptions", "configure"]
