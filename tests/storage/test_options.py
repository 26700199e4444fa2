"""How stores are reached: the same for every library, and no secret in anything that is shown."""

from __future__ import annotations

import io
import json
import logging
import pickle
import traceback
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr
from pydantic import BaseModel, TypeAdapter, ValidationError

from pea.errors import AccessDeniedError, LocationError, StorageError
from pea.storage import Location, RetryPolicy, StorageOptions, configure
from pea.storage.clients import client
from pea.storage.options import options_for
from tests.object_server import SECRET, ObjectServer

KEYS = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
QUICK = RetryPolicy(max_retries=1, first_wait_s=0.01, longest_wait_s=0.01, give_up_after_s=2, silence_s=1)


def _write_and_read(place: Location) -> None:
    """With obstore, zarr and tensorstore."""
    (place / "file").write_bytes(b"x")
    assert [each.name for each in place.entries()] == ["file"]
    array = zarr.create_array((place / "z").zarr_store(), shape=(3,), dtype="int32")
    array[:] = [1, 2, 3]
    opened = tensorstore.open({"driver": "zarr3", "kvstore": (place / "z").tensorstore_spec()}, read=True).result()
    assert np.array_equal(opened.read().result(), [1, 2, 3])


def test_the_environment_reaches_every_library(bucket: Location) -> None:
    _write_and_read(bucket / "x")


def test_options_of_a_url_reach_every_library(
    bucket: Location, object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    configure({str(bucket): StorageOptions(endpoint=object_server.url, region="eu-west-3")}, QUICK)
    _write_and_read(bucket / "x")
    assert bucket.tensorstore_spec()["aws_region"] == "eu-west-3"
    other = pickle.dumps(bucket / "x/file")
    configure({}, QUICK)
    assert pickle.loads(other).read_bytes() == b"x", "the options did not travel with the location"
    with pytest.raises(StorageError, match=r"the server refuses connections.*See that .* the endpoint right"):
        (bucket / "x/file").read_bytes()


def test_a_profile_reaches_every_library(
    bucket: Location, object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(f"[profile lab]\nregion = eu-west-3\nendpoint_url = {object_server.url}\n")
    (tmp_path / "credentials").write_text(f"[lab]\naws_access_key_id = me\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    configure({str(bucket): StorageOptions(profile="lab")}, QUICK)
    _write_and_read(bucket / "x")
    configure({}, QUICK)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    _write_and_read(bucket / "y")


def test_a_profile_that_does_not_exist_is_named(bucket: Location) -> None:
    configure({str(bucket): StorageOptions(profile="nobody")}, QUICK)
    with pytest.raises(LocationError, match="nobody: no such AWS profile"):
        bucket.exists()


def test_anonymous_requests_carry_no_credentials(bucket: Location, object_server: ObjectServer) -> None:
    from tests.storage.proxy import FaultProxy

    with FaultProxy(object_server.url) as proxy:
        configure({str(bucket): StorageOptions(endpoint=proxy.url)}, QUICK)
        (bucket / "file").write_bytes(b"x")
        public = urllib.request.Request(f"{object_server.url}/{bucket.bucket}/public-file", b"x", method="PUT")
        public.add_header("x-amz-acl", "public-read")
        public.add_header("Content-Type", "application/octet-stream")
        urllib.request.urlopen(public, timeout=10).close()
        configure({str(bucket): StorageOptions(endpoint=proxy.url, anonymous=True)}, QUICK)
        assert (bucket / "public-file").read_bytes() == b"x"
        tensorstore.KvStore.open(bucket.tensorstore_spec()).result().read("public-file").result()
        signed = [
            any(name.lower() == "authorization" for name in request.headers)
            for request in proxy.requests
            if "file" in request.path
        ]
    assert signed[0] is True and len(signed) >= 3 and not any(signed[1:])


def test_the_longest_beginning_of_a_url_counts() -> None:
    configure({"s3://b": StorageOptions(region="one"), "s3://b/deep/": StorageOptions(region="two")})
    try:
        assert options_for("s3://b/x").region == "one"
        assert options_for("s3://b/deep/x").region == options_for("s3://b/deep").region == "two"
        assert options_for("s3://b/deeper").region == "one"
        assert options_for("s3://bb").region is None
    finally:
        configure({})
    with pytest.raises(LocationError, match="options belong to URLs"):
        configure({"bucket": StorageOptions()})


def test_no_secret_is_shown(
    bucket: Location, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in a name, nor in an error with its whole trace, nor in a specification, a pickle or a log."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-token-of-the-tests")
    place = bucket / "file"
    place.write_bytes(b"x")
    shown = [
        str(place),
        repr(place),
        json.dumps(place.tensorstore_spec()),
        repr(place._stored),
        repr(client(place._stored.bucket)),
    ]  # type: ignore[union-attr]
    shown += [repr(place.zarr_store()), pickle.dumps(place).decode("latin-1")]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    configure({}, QUICK)
    asks: list[Any] = [place.read_bytes, lambda: place.write_bytes(b"y"), lambda: list(bucket.entries())]
    for ask in asks:
        with pytest.raises(StorageError) as caught:
            ask()
        trace = io.StringIO()
        traceback.print_exception(caught.value, file=trace)
        shown += [str(caught.value), repr(caught.value), trace.getvalue()]
    for text in (*shown, caplog.text):
        assert SECRET not in text and "a-session-token-of-the-tests" not in text


def test_a_signed_url_in_an_error_loses_its_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    from obstore.exceptions import GenericError

    from pea.storage.failures import translated

    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "YWNjb3VudC1rZXk=")
    message = (
        "Generic error for url (https://x.blob/y?sig=sEcReT&se=2030) with YWNjb3VudC1rZXk=\n\nDebug source: sEcReT"
    )
    with pytest.raises(StorageError) as caught, translated("cannot read", "az://x/y"):
        raise GenericError(message)
    text = "".join(traceback.format_exception(caught.value))
    assert "sEcReT" not in text and "YWNjb3VudC1rZXk=" not in text and "https://x.blob/y" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://host/x", "unknown scheme http://; expected a path, file://, s3://, gs:// or az://"),
        ("hdfs://host/x", "unknown scheme hdfs://"),
        ("pipe:cat x.tar", "`pipe:` is refused: it runs a shell command"),
        ("pipe://cat", "`pipe:` is refused: it runs a shell command"),
        ("s3:/bucket/x", "one slash in a URL, where two belong"),
        ("s3://", "not the name of a bucket"),
        ("s3://bad bucket/x", "not the name of a bucket"),
        ("s3://key:pass@bucket/x", "a URL must not hold credentials"),
        ("s3://bucket/a/../b", "must not hold `..`"),
        ("s3://bucket/a\nb", "must not hold `..` or control characters"),
        ("file://elsewhere/x", "not a file on this machine"),
        ("", "names nothing"),
    ],
)
def test_what_is_no_location_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(LocationError, match=message) as caught:
        Location.parse(text)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value) and "pass" not in str(caught.value)


@pytest.mark.parametrize("text", ["a/b", "/a/b", "s3:x", "foo:/x", "./x", "x y/ü", "http:"])
def test_a_path_stays_a_path(text: str) -> None:
    assert Location.parse(text).is_local
    assert str(Location.parse(text)) == str(Path(text))


def test_azure_is_refused_for_tensorstore() -> None:
    with pytest.raises(LocationError, match="az://box: tensorstore has no driver for Azure"):
        Location.parse("az://box/x").tensorstore_spec()


def test_an_option_that_cannot_take_effect_is_refused() -> None:
    configure({"gs://box": StorageOptions(endpoint="http://127.0.0.1:1")})
    try:
        with pytest.raises(LocationError, match="an endpoint cannot be set"):
            Location.parse("gs://box/x").exists()
    finally:
        configure({})


class _Model(BaseModel):
    place: Location


def test_a_setting_is_parsed_from_text_and_written_as_text() -> None:
    for text in ("s3://bucket/a", "runs/demo"):
        model = _Model.model_validate_json(json.dumps({"place": text}), strict=True)
        assert model.place == Location.parse(text)
        assert model.model_dump(mode="json") == {"place": text}
        assert _Model(place=Path("x") if "://" not in text else text).place  # type: ignore[arg-type]
    assert TypeAdapter(Location).json_schema()["type"] == "string"
    for wrong in ("pipe:cat", "http://x"):
        with pytest.raises(ValidationError, match=r"refused|unknown scheme"):
            _Model.model_validate_json(json.dumps({"place": wrong}), strict=True)
    with pytest.raises(ValidationError):
        _Model.model_validate_json('{"place": 3}', strict=True)


def test_without_credentials_it_says_so(bucket: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that is asked for the credentials of an instance stands for their absence."""
    from obstore.exceptions import GenericError

    from pea.storage.failures import translated

    with pytest.raises(AccessDeniedError, match="no credentials were found"), translated("cannot read", bucket):
        raise GenericError("Error performing PUT http://169.254.169.254/latest/api/token in 1s - HTTP error")
