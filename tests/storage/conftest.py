"""The places that every contract of the storage is held against."""

from __future__ import annotations

from pathlib import Path

import pytest

from pea.storage import Location

KINDS = ("path", "file_url", "s3", pytest.param("azure", marks=pytest.mark.slow))


@pytest.fixture(params=KINDS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty place of each kind."""
    if request.param == "s3":
        return request.getfixturevalue("bucket") / "some/folder"
    if request.param == "azure":
        return request.getfixturevalue("azure_container") / "some/folder"
    return Location.parse(tmp_path / "some folder" if request.param == "path" else (tmp_path / "some folder").as_uri())
