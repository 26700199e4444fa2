"""Fixtures that several test modules share."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from tests.cache_helpers import CacheMaker

hypothesis_settings.register_profile(
    "pea", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
hypothesis_settings.load_profile("pea")


@pytest.fixture
def make_cache(tmp_path: Any) -> CacheMaker:
    """Builds small caches of made-up arrays; see ``CacheMaker``."""
    return CacheMaker(tmp_path / "cache")
