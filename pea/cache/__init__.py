"""The cache of teacher answers: written once per tar, verified whenever it is read.

Importing this package loads nothing else of it: each name brings its module when it is first used, so that a look at
a summary needs neither numpy nor zarr.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pea.cache.completion import CompletionRecord
    from pea.cache.differences import Difference, compare
    from pea.cache.identity import Identity, cache_identity, reading_identity, sha256_folder
    from pea.cache.manifest import Manifest
    from pea.cache.part_plan import PartPlan
    from pea.cache.reader import Cache
    from pea.cache.schema import ArraySpec, BucketSchema, ShardSchema, base_arrays, feature_arrays
    from pea.cache.shard import Bucket, Shard
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

_NAMES = {
    "completion": ("CompletionRecord",),
    "differences": ("Difference", "compare"),
    "identity": ("Identity", "cache_identity", "reading_identity", "sha256_folder"),
    "manifest": ("Manifest",),
    "part_plan": ("PartPlan",),
    "reader": ("Cache",),
    "schema": ("ArraySpec", "BucketSchema", "ShardSchema", "base_arrays", "feature_arrays"),
    "shard": ("Bucket", "Shard"),
    "writer": ("ShardWriter",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"pea.cache.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
