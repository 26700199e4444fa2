"""A cache in a bucket: the same rules, the same answers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import boto3
import pytest

from pea.cache import Cache
from pea.cache.audit import audit, repair
from pea.cache.completion import read_record
from pea.cache.takedown import remove_samples
from pea.cache.totals import totals
from pea.errors import ShardDamagedError
from pea.storage.location import Location
from stages.cli import main
from tests.cache_helpers import CacheMaker, content, identity
from tests.object_server import ObjectServer

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]


@pytest.fixture(params=["bucket", "azure_container"])
def remote(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CacheMaker:
    monkeypatch.setenv("PEA_WORK_DIR", str(tmp_path / "work"))
    return CacheMaker(request.getfixturevalue(request.param) / "run/cache/parallel")


def names(cache: Cache, tar: str) -> set[str]:
    return {entry.name for entry in cache.shard_dir(tar).entries()}


def store(cache: Cache, tar: str = "a") -> Location:
    record = cache.record_path(cache.part_plan(tar, "p000"))
    return record.parent / read_record(record).store


def test_it_holds_what_a_cache_on_a_disk_holds(remote: CacheMaker, tmp_path: Path) -> None:
    wanted = identity(["a", "b"])
    there, here = remote.fill(wanted), CacheMaker(tmp_path / "here").fill(wanted)
    assert content(there) == content(here)
    assert audit(there.directory).problems == []
    assert totals(there)["samples"] == totals(Cache.open(here.directory))["samples"]
    grown = remote.fill(identity(["a", "b"], draws=4), extend=True)
    assert grown.draws_per_sample == 4 and audit(grown.directory).problems == []


@pytest.mark.parametrize("way", ["flipped", "missing", "empty", "cut", "zeros"])
def test_damage_is_found_never_read_and_repaired(remote: CacheMaker, way: str) -> None:
    cache = remote.fill(identity(["a"]))
    expected, place = content(cache), store(cache) / "24x32/noise_pred/c/0/0/0/0"
    data = place.read_bytes()
    if way == "missing":
        place.delete()
    else:
        flipped = data[:9] + bytes([data[9] ^ 1]) + data[10:]
        place.write_bytes({"empty": b"", "cut": data[:-3], "flipped": flipped, "zeros": bytes(len(data))}[way])
    shutil.rmtree(os.environ["PEA_WORK_DIR"], ignore_errors=True)  # or a copy would be read
    with pytest.raises(ShardDamagedError):
        content(Cache.open(cache.directory))
    found = audit(cache.directory)
    assert [each.where for each in found.problems] == [str(place)]
    assert repair(cache, found) == [("a", "p000")]
    again = remote.fill(identity(["a"]))
    assert content(again) == expected and audit(again.directory).problems == []
    assert names(again, "a") == {"p000.2.json", store(again).name}


def test_a_takedown_leaves_nothing_of_the_sample(remote: CacheMaker) -> None:
    cache = remote.fill(identity(["a"]))
    assert remove_samples(cache, "a", ["a-24x32-1"]) == ["a-24x32-1"]
    assert Cache.open(cache.directory).num_samples == 3 and audit(cache.directory).problems == []
    assert not [each for each in cache.directory.list(recursive=True) if b"a-24x32-1" in each.read_bytes()]


def test_an_upload_that_a_dead_writer_left_open_is_nothing(
    bucket: Location, object_server: ObjectServer, tmp_path: Path
) -> None:
    maker = CacheMaker(bucket / "cache")  # type: ignore[arg-type]
    cache = Cache.create_or_resume(maker.directory, identity(["a"]))
    client = boto3.client("s3", endpoint_url=object_server.url, region_name="us-east-1")
    place = {"Bucket": bucket.bucket, "Key": f"{(cache.shard_dir('a') / 'p000-0123456789ab.zarr/24x32/x').key}"}
    upload = client.create_multipart_upload(**place)
    client.upload_part(**place, PartNumber=1, UploadId=upload["UploadId"], Body=b"x" * (5 << 20))
    whole = maker.fill(identity(["a"]))
    assert content(whole) == content(CacheMaker(tmp_path / "here").fill(identity(["a"])))
    assert names(whole, "a") == {"p000.json", store(whole).name} and audit(whole.directory).problems == []
    assert len(client.list_multipart_uploads(Bucket=bucket.bucket)["Uploads"]) == 1, "a lifecycle rule clears it"


def test_the_inspector(remote: CacheMaker, capsys: Capture) -> None:
    cache = remote.fill(identity(["a"]))
    run = str(cache.directory).removesuffix("/cache/parallel")
    assert main(["inspect", "info", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"]["kept"] == 4
    for words in (["ls"], ["ls", "a"], ["show", "a/a-24x32-1"], ["check"]):
        assert main(["inspect", words[0], str(cache.directory), *words[1:]]) == 0, words
    assert main(["inspect", "remove", run, "a/a-24x32-1", "--yes"]) == 0
    store(cache).delete_tree()
    assert main(["inspect", "check", run, "--repair"]) == 1
    assert cache.unfinished() == [("a", "p000")]
    assert main(["inspect", "info", run + "/nowhere"]) == 2
