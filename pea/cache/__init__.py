"""The cache of teacher answers: written once per tar, verified whenever it is read.

Importing this package loads neither torch nor zarr; ``ShardWriter`` loads zarr when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pea.cache.compare import Difference, compare
from pea.cache.completion import CompletionRecord
from pea.cache.identity import Identity, cache_identity, reading_identity, sha256_folder
from pea.cache.manifest import Manifest, PartPlan
from pea.cache.reader import Cache
from pea.cache.schema import ArraySpec, BucketSchema, ShardSchema, base_arrays, feature_arrays
from pea.cache.shard import Bucket, Shard

if TYPE_CHECKING:
    from pea.cache.writer import ShardWriter

__all__ = [
    "ArraySpec",
    "Bucket",
    "BucketSchema",
    "Cache",
    "CompletionRecord",
    "Difference",
    "Identity",
    "Manifest",
    "PartPlan",
    "Shard",
    "ShardSchema",
    "ShardWriter",
    "base_arrays",
    "cache_identity",
    "compare",
    "feature_arrays",
    "reading_identity",
    "sha256_folder",
]


def __getattr__(name: str) -> Any:
    if name == "ShardWriter":
        from pea.cache.writer import ShardWriter

        return ShardWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
