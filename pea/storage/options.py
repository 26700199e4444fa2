"""How stores are reached: endpoint, region, anonymous access. No secrets: the platform keeps those."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pea.errors import LocationError


@dataclass(frozen=True)
class StorageOptions:
    """How the bucket of a URL is reached; what is None comes from the environment or the platform."""

    endpoint: str | None = None
    """URL of the server, where it is not the cloud's own: ``http://127.0.0.1:9000``."""
    region: str | None = None
    """Region of an S3 bucket."""
    anonymous: bool = False
    """Whether requests go without credentials, as public buckets want it."""
    profile: str | None = None
    """Name of an AWS profile whose credentials and region are taken."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long a failing store is asked again: server errors, refused or dropped connections, silence."""

    max_retries: int = 20
    """Tries after the first."""
    first_wait_s: float = 0.1
    """Pause before the second try; doubled from try to try."""
    longest_wait_s: float = 10.0
    """Longest pause between two tries."""
    give_up_after_s: float = 120.0
    """No further try begins after this time."""
    silence_s: float = 30.0
    """A request that brings no byte for this long is given up and tried again."""


_by_url: dict[str, StorageOptions] = {}
_retry = RetryPolicy()


def configure(options: Mapping[str, StorageOptions], retry: RetryPolicy | None = None) -> None:
    """Set how URLs are reached from now on in this process; the longest matching beginning of a URL counts.

    ``retry`` stays as it is where None is given.

    Raises:
        LocationError: a key is not the beginning of a URL.
    """
    global _retry
    for url in options:
        if "://" not in url:
            raise LocationError("options belong to URLs", where=url, expected="a key such as s3://bucket")
    _by_url.clear()
    _by_url.update({url.rstrip("/"): each for url, each in options.items()})
    _retry = retry or _retry


def retry_policy() -> RetryPolicy:
    """What ``configure`` was told last."""
    return _retry


def options_for(url: str) -> StorageOptions:
    """The options of the longest configured beginning of a URL, taken at whole path segments."""
    matching = [prefix for prefix in _by_url if url == prefix or url.startswith(prefix + "/")]
    return _by_url[max(matching, key=len)] if matching else StorageOptions()


def s3_options(options: StorageOptions) -> StorageOptions:
    """The options with what the environment and the AWS profile add, so that every library is told the same."""
    profile = options.profile or os.environ.get("AWS_PROFILE")
    settings = aws_profile(profile) if profile else {}
    endpoint = options.endpoint or _first_set("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    region = options.region or _first_set("AWS_REGION", "AWS_DEFAULT_REGION") or settings.get("region")
    unsigned = options.anonymous or os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes", "on")
    return replace(
        options,
        endpoint=(endpoint or settings.get("endpoint_url") or "").rstrip("/") or None,
        region=region or "us-east-1",
        anonymous=unsigned,
        profile=profile,
    )


def has_aws_keys_in_environment() -> bool:
    """Whether the environment holds an AWS key, which then counts more than a profile of the environment."""
    return bool(os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY"))


def aws_profile(name: str) -> dict[str, str]:
    """The settings of a profile from the two files in which AWS keeps them; holds secrets, so never show it.

    Raises:
        LocationError: no file has this profile.
    """
    config_file, credentials_file = aws_files()
    section = name if name == "default" else f"profile {name}"
    found = {**_ini_section(config_file, section), **_ini_section(credentials_file, name)}
    if not found:
        remedy = "Correct AWS_PROFILE or the profile in `storage`, or run `aws configure`."
        raise LocationError("no such AWS profile", where=name, expected=f"it in {config_file}", remedy=remedy)
    return found


def aws_files() -> tuple[Path, Path]:
    """Where AWS's tools keep profiles: settings, and credentials."""
    config_file = os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")
    credentials_file = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    return Path(config_file).expanduser(), Path(credentials_file).expanduser()


def _ini_section(path: Path, section: str) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        raise LocationError("not a readable AWS file", where=path) from None  # the cause may quote a secret
    return dict(parser[section]) if parser.has_section(section) else {}


def _first_set(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)
