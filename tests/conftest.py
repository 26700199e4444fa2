"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from pea.config import Config
from pea.storage import Location, RetryPolicy, configure
from tests.azure_emulator import azure_container, azurite
from tests.cache_helpers import CacheMaker, keep_templates
from tests.object_server import ObjectServer, running

__all__ = ["azure_container", "azurite"]  # fixtures

# Several test processes, or a Ray worker beside one, with two threads each on two cores wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

hypothesis_settings.register_profile(
    "pea", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
hypothesis_settings.load_profile("pea")


@pytest.fixture(scope="session", autouse=True)
def _cache_templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    keep_templates(tmp_path_factory.mktemp("templates"))
    yield
    keep_templates(None)


@pytest.fixture
def make_cache(tmp_path: Any) -> CacheMaker:
    """Builds small caches of made-up arrays; see ``CacheMaker``."""
    return CacheMaker(tmp_path / "cache")


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A complete SDXL-shaped setup with its caches collected in this process; see ``make_setup``. Not to be changed."""
    from tests.tiny_setup import make_setup

    return make_setup(tmp_path_factory.mktemp("tiny_sdxl"), "sdxl")


@pytest.fixture
def fresh_run(tiny_sdxl: Config, tmp_path: Path) -> Config:
    """The same setup with an empty run folder."""
    return tiny_sdxl.model_copy(update={"run_dir": tmp_path / "run"})


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectServer]:
    """An S3 server on the loopback, in a process of its own."""
    with running() as server:
        yield server


@pytest.fixture
def bucket(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Location]:
    """A fresh bucket, which obstore, tensorstore and child processes reach through the environment."""
    for name, value in object_server.environment().items():
        monkeypatch.setenv(name, value)
    configure({}, RetryPolicy(max_retries=4, first_wait_s=0.02, longest_wait_s=0.2, give_up_after_s=10, silence_s=5))
    yield Location.parse(f"s3://{object_server.new_bucket()}")
    configure({}, RetryPolicy())
