"""Connections to object stores, made alike for our own reading and writing, for zarr and for tensorstore."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from obstore.store import AzureStore, GCSStore, S3Store

from pea.errors import AccessDeniedError, LocationError, StorageError
from pea.storage.options import (
    RetryPolicy,
    StorageOptions,
    aws_files,
    aws_profile,
    has_aws_keys_in_environment,
    retry_policy,
    s3_options,
)

ObjectStoreClient = S3Store | GCSStore | AzureStore
_PLATFORM = ("AWS_", "GOOGLE_", "AZURE_")


class Bucket(NamedTuple):
    """A bucket (or container) and how it is reached."""

    scheme: str
    """``s3``, ``gs`` or ``az``."""
    name: str
    """Name of the bucket."""
    options: StorageOptions
    """As ``options_for`` gives them."""


def client(bucket: Bucket, prefix: str = "") -> ObjectStoreClient:
    """The connection to a bucket, or to what lies below ``prefix`` in it; one a process, kept.

    Raises:
        StorageError: this process was forked from one that had talked to an object store.
        LocationError: options that this kind of store has not, or an AWS profile that does not exist.
    """
    _refuse_after_fork()
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith(_PLATFORM)))
    return _client(bucket, prefix, retry_policy(), environment)


@lru_cache(maxsize=64)
def _client(
    bucket: Bucket,
    prefix: str,
    retry: RetryPolicy,
    environment: tuple[tuple[str, str], ...],  # noqa: ARG001 (see below)
) -> ObjectStoreClient:
    """``environment`` is only a part of the cache's key: the libraries read it while they connect."""
    settings: dict[str, Any] = {"prefix": prefix or None, "retry_config": _retries(retry)}
    settings["client_options"] = _timeouts(retry)
    if bucket.scheme == "s3":
        return _s3(bucket, settings)
    if bucket.scheme == "gs":
        if bucket.options.endpoint:
            raise LocationError("an endpoint cannot be set for Google's storage", where=f"gs://{bucket.name}")
        return GCSStore(bucket.name, skip_signature=bucket.options.anonymous, **settings)
    endpoint = bucket.options.endpoint or os.environ.get("AZURE_STORAGE_ENDPOINT")
    if endpoint:
        settings["endpoint"] = endpoint
        settings["client_options"]["allow_http"] = endpoint.startswith("http://")
    return AzureStore(bucket.name, skip_signature=bucket.options.anonymous, **settings)


def _s3(bucket: Bucket, settings: dict[str, Any]) -> S3Store:
    options = s3_options(bucket.options)
    if options.endpoint:
        settings["endpoint"] = options.endpoint
        settings["client_options"]["allow_http"] = options.endpoint.startswith("http://")
    settings |= {"region": options.region, "skip_signature": options.anonymous, **_profile_credentials(options)}
    return S3Store(bucket.name, **settings)


def _profile_credentials(options: StorageOptions) -> dict[str, Any]:
    """Credentials of an AWS profile: its own keys, or, for roles and single sign-on, what boto3 makes of it."""
    if options.anonymous or not options.profile or _keys_come_from_environment(options):
        return {}
    profile = aws_profile(options.profile)
    if "aws_access_key_id" in profile and "aws_secret_access_key" in profile:
        keys = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        return {key.removeprefix("aws_"): profile[key] for key in keys if key in profile}
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        remedy = "Install boto3, or give the credentials in the environment."
        raise AccessDeniedError(
            "the AWS profile holds no keys (a role, or single sign-on)", where=options.profile, remedy=remedy
        ) from None
    return {"credential_provider": Boto3CredentialProvider(boto3.Session(profile_name=options.profile))}


def _keys_come_from_environment(options: StorageOptions) -> bool:
    """As in AWS's own tools: a profile that was asked for goes before the keys of the environment, AWS_PROFILE not."""
    return has_aws_keys_in_environment() and options.profile == os.environ.get("AWS_PROFILE")


def tensorstore_bucket(bucket: Bucket) -> dict[str, Any]:
    """The kvstore specification of a bucket for tensorstore, without a path. It holds no secret.

    Raises:
        LocationError: Azure, for which tensorstore has no driver.
    """
    if bucket.scheme == "gs":
        return {"driver": "gcs", "bucket": bucket.name}
    if bucket.scheme != "s3":
        remedy = "Copy it to a disk or to another store first."
        raise LocationError("tensorstore has no driver for Azure", where=f"az://{bucket.name}", remedy=remedy)
    options = s3_options(bucket.options)
    spec: dict[str, Any] = {"driver": "s3", "bucket": bucket.name, "aws_region": options.region}
    if options.endpoint:
        spec["endpoint"] = options.endpoint
    if options.anonymous:
        spec["aws_credentials"] = {"type": "anonymous"}
    elif options.profile and not _keys_come_from_environment(options):
        config_file, credentials_file = aws_files()
        spec["aws_credentials"] = {
            "type": "profile",
            "profile": options.profile,
            "config_file": str(config_file),
            "credentials_file": str(credentials_file),
        }
    elif has_aws_keys_in_environment():
        spec["aws_credentials"] = {"type": "environment"}
    return spec


def _retries(policy: RetryPolicy) -> dict[str, Any]:
    return {
        "max_retries": policy.max_retries,
        "retry_timeout": timedelta(seconds=policy.give_up_after_s),
        "backoff": {
            "init_backoff": timedelta(seconds=policy.first_wait_s),
            "max_backoff": timedelta(seconds=policy.longest_wait_s),
            "base": 2,
        },
    }


def _timeouts(policy: RetryPolicy) -> dict[str, Any]:
    """Silence ends a request, length does not: a large object over a slow line takes as long as it takes."""
    return {
        "connect_timeout": timedelta(seconds=min(5.0, policy.silence_s)),
        "read_timeout": timedelta(seconds=policy.silence_s),
        "timeout": timedelta(hours=6),
    }


_used = _forked_after_use = False


def _refuse_after_fork() -> None:
    global _used
    if _forked_after_use:
        remedy = "Start workers with the `spawn` or `forkserver` method."
        raise StorageError("a forked process cannot use its parent's connections to an object store", remedy=remedy)
    _used = True


def _note_fork() -> None:
    global _forked_after_use
    _forked_after_use = _forked_after_use or _used


os.register_at_fork(after_in_child=_note_fork)
