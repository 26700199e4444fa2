"""Which cache a tar is of that is to be replaced or retired."""

from __future__ import annotations

from typing import Any

import pytest

from pea.cache.identity import RETIRED
from pea.errors import CacheError
from stages.cluster.planning import TarChanges
from tests.cache_helpers import identity

CACHES: Any = {"parallel": identity(["a", "b"]), "culture": identity(["b", "c"], **{RETIRED: ["old"]})}


def test_each_tar_goes_to_its_cache() -> None:
    found = TarChanges(("a", "culture/b"), ("c", "old")).of(CACHES)
    assert found == {"parallel": TarChanges(("a",)), "culture": TarChanges(("b",), ("c", "old"))}
    assert TarChanges().of(CACHES) == {"parallel": TarChanges(), "culture": TarChanges()}
    assert TarChanges().of({}) == {}


def test_a_tar_of_culture_images_is_that_of_their_descriptions_too() -> None:
    caches: Any = {**CACHES, "described": identity(["c"])}
    found = TarChanges(("c",)).of(caches)
    assert found == {"parallel": TarChanges(), "culture": TarChanges(("c",)), "described": TarChanges(("c",))}
    assert TarChanges(("described/c",)).of(caches)["culture"] == TarChanges()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (TarChanges(("b",)), r"2 caches have a tar of that name; expected parallel/b or culture/b; got b$"),
        (TarChanges(("z",)), r"no such tar in the caches; expected a, b or b, c; got z\. .*`pea cache --extend`"),
        (TarChanges(("parallel/c",)), r"no such tar in the caches; .*got parallel/c"),
        (TarChanges(("old",)), r"no such tar in the caches; .*got old"),
    ],
)
def test_names_that_mean_no_tar_or_two(changes: TarChanges, message: str) -> None:
    with pytest.raises(CacheError, match=message):
        changes.of(CACHES)


def test_without_a_cache_nothing_can_be_changed() -> None:
    with pytest.raises(CacheError, match=r"there is no cache yet; got a\."):
        TarChanges((), ("a",)).of({})
