"""How buckets are reached is a setting, and a secret is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pea.config import load_config
from pea.errors import ConfigError
from pea.storage import RetryPolicy, StorageOptions, configure
from pea.storage.options import options_for

DEMO = Path(__file__).parents[2] / "configs/demo.yaml"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    configure({}, RetryPolicy())


def test_a_configuration_says_how_its_urls_are_reached() -> None:
    load_config(DEMO, ["storage={'s3://box/': {endpoint: 'http://127.0.0.1:9', anonymous: true}}"])
    assert options_for("s3://box/x") == StorageOptions(endpoint="http://127.0.0.1:9", anonymous=True)
    assert options_for("s3://boxes/x") == StorageOptions()


@pytest.mark.parametrize(
    ("storage", "problem"),
    [
        ("{'s3://box': {secret_access_key: abc}}", "unknown key storage.s3://box.secret_access_key"),
        ("{'box': {region: x}}", "not the beginning of a URL"),
        ("{'ftp://box': {region: x}}", "unknown scheme ftp://"),
        ("{'s3://box': {endpoint: 'http://me:pass@host'}}", "storage.s3://box.endpoint"),
        ("{'s3://me:pass@box': {region: x}}", "must not hold credentials"),
    ],
)
def test_what_cannot_be_meant_is_refused(storage: str, problem: str) -> None:
    with pytest.raises(ConfigError, match="problem") as caught:
        load_config(DEMO, [f"storage={storage}"])
    assert problem in str(caught.value) and "pass" not in str(caught.value)
