"""A cache from a stranger is data: whatever its JSON says, only our errors come out, and nothing outside is touched."""

from __future__ import annotations

import copy
import hashlib
import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pea.cache import Cache
from pea.cache.audit import audit, repair
from pea.cache.certificate import Certificate, read_certificate, write_certificate
from pea.cache.completion import CompletionRecord, FileEntry, record_to_bytes
from pea.cache.manifest import FILE_NAME
from pea.cache.takedown import remove_samples
from pea.cache.totals import totals
from pea.errors import PeaError
from pea.storage.digests import canonical_json, sha256_text
from tests.cache_helpers import CacheMaker, content, identity, store_of

ARRAY = "24x32/noise_pred"
DEEP: Any = []
for _ in range(400):
    DEEP = [DEEP]
NASTY = (
    *(-1, 0, 1, 2**31, 2**53, 2**62, 10**30, 1.5, float("1e308"), True, None),
    *(
        "",
        ".",
        "..",
        "x",
        "../../outside",
        "a/../../../outside",
        "\0",
        "\ud800",
        "x" * 5000,
        "float32",
        "int64",
        "p000",
    ),
    *([], {}, [[]], [0], [-1], [2**40] * 4, {"x": {}}, DEEP),
)
Place = tuple[str | int, ...]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of one tar."""
    return Path(CacheMaker(tmp_path_factory.mktemp("sound") / "cache").fill(identity(["a"], draws=2)).directory)


def places(value: Any, above: Place = ()) -> Iterator[Place]:
    """Every place in a document."""
    yield above
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in entries:
        yield from places(each, (*above, key))


def changed(document: Any, place: Place, value: Any, way: str) -> Any:
    """A copy with another value at a place, or with that place left out, or with one more beside it."""
    if not place:
        return value
    document = copy.deepcopy(document)
    holder = document
    for key in place[:-1]:
        holder = holder[key]
    if way == "delete":
        del holder[place[-1]]
    elif way == "add" and isinstance(holder, dict):
        holder["another"] = value
    else:
        holder[place[-1]] = value
    return document


class Forger:
    """Writes documents with digests that are right again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record_path = folder / "shards" / "a" / "p000.json"
        raw = json.loads(self.record_path.read_text("utf-8"))
        self.record = {name: raw[name] for name in ("summary", "files", "kept", "dropped")}
        self.store = folder / "shards" / "a" / raw["summary"]["store"]
        self.manifest = json.loads((folder / FILE_NAME).read_text("utf-8"))
        del self.manifest["sha256"]
        self.metadata = json.loads((self.store / ARRAY / "zarr.json").read_text("utf-8"))

    def write_manifest(self, document: Any) -> None:
        text = json.dumps(document, indent=1).removesuffix("\n}").removesuffix("}")
        (self.folder / FILE_NAME).write_text(f'{text},\n "sha256": "{sha256_text(text)}"\n}}\n', "utf-8")

    def write_record(self, document: Any) -> None:
        summary = json.dumps(document.get("summary") if isinstance(document, dict) else document)
        parts = [f'{{"summary":{summary},"summary_sha256":"{sha256_text(summary)}"']
        if isinstance(document, dict):
            parts += [f'"{name}":{json.dumps(value)}' for name, value in document.items() if name != "summary"]
        text = ",\n".join(parts)
        self.record_path.write_text(f'{text},\n"sha256":"{sha256_text(text)}"}}\n', "utf-8")

    def write_metadata(self, document: Any) -> None:
        data = json.dumps(document).encode()
        (self.store / ARRAY / "zarr.json").write_bytes(data)
        record = copy.deepcopy(self.record)
        name = f"{ARRAY}/zarr.json"
        record["summary"]["num_bytes"] += len(data) - record["files"][name][0]
        record["files"][name] = [len(data), hashlib.sha256(data).hexdigest()]
        self.write_record(record)


def use(folder: Path) -> list[PeaError]:
    """Everything that is done with a cache; whatever else than our errors comes out fails the test."""
    errors: list[PeaError] = []

    def attempt(action: Any) -> None:
        try:
            action()
        except PeaError as error:
            errors.append(error)

    attempt(lambda: content(Cache.open(folder)))
    attempt(lambda: totals(Cache.open(folder, partial=True)))
    attempt(lambda: read_certificate(folder))
    attempt(lambda: remove_samples(Cache.open(folder, partial=True), "a", ["a-24x32-1"]))
    attempt(lambda: repair(Cache.open(folder, partial=True), audit(folder, jobs=1)))
    attempt(lambda: content(Cache.open(folder, partial=True)))
    assert all("\n" not in str(error) for error in errors)
    return errors


def try_out(sound: Path, work: Path, kind: str, place: Place, value: Any, way: str) -> None:
    """A cache with one change in one document, beside a folder that must not change."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(sound, work / "cache")
    outside = work / "outside"
    (outside / "p000-0.zarr").mkdir(parents=True)
    (outside / "precious").write_text("stays")
    before = {path: path.read_bytes() if path.is_file() else b"" for path in outside.rglob("*")}
    forger = Forger(work / "cache")
    document = getattr(forger, kind)
    if isinstance(value, str) and value == "absolute":
        value = str(outside)
    getattr(forger, f"write_{kind}")(changed(document, place, value, way))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    use(work / "cache")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300_000, "kB more than before"
    assert {path: path.read_bytes() if path.is_file() else b"" for path in outside.rglob("*")} == before
    assert {path.name for path in work.iterdir()} == {"cache", "outside"}


def forgeries(sound: Path) -> st.SearchStrategy[tuple[str, Place, Any, str]]:
    forger = Forger(sound)
    kinds = {kind: list(places(getattr(forger, kind))) for kind in ("manifest", "record", "metadata")}
    values = st.sampled_from((*NASTY, "absolute"))
    ways = st.sampled_from(("replace", "replace", "replace", "delete", "add"))
    return st.sampled_from(sorted(kinds)).flatmap(
        lambda kind: st.tuples(st.just(kind), st.sampled_from(kinds[kind]), values, ways)
    )


def forge(sound: Path, work: Path, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(forgeries(sound))
    def check(forgery: tuple[str, Place, Any, str]) -> None:
        try_out(sound, work, *forgery)

    check()


@pytest.mark.slow
def test_a_few_forgeries(sound: Path, tmp_path: Path) -> None:
    forge(sound, tmp_path / "work", 12)


@pytest.mark.slow
def test_many_forgeries(sound: Path, tmp_path: Path) -> None:
    forge(sound, tmp_path / "work", 600)


@pytest.mark.parametrize("name", ["../../../outside", "absolute", "..", "linked.zarr"])
def test_a_store_outside_of_the_cache_is_neither_read_nor_deleted(sound: Path, tmp_path: Path, name: str) -> None:
    """Its files are those of the record, so that nothing but its place is wrong."""
    shutil.copytree(sound, tmp_path / "cache")
    forger = Forger(tmp_path / "cache")
    outside = tmp_path / "outside"
    shutil.move(forger.store, outside)
    if name == "linked.zarr":
        (forger.record_path.parent / name).symlink_to(outside)
    record = changed(forger.record, ("summary", "store"), str(outside) if name == "absolute" else name, "replace")
    forger.write_record(record)
    before = {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
    assert use(tmp_path / "cache")
    assert {path: path.stat().st_mtime_ns for path in outside.rglob("*")} == before


def test_a_tar_that_leads_outside_is_refused(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "cache")
    shutil.move(tmp_path / "cache" / "shards" / "a", tmp_path / "outside")
    (tmp_path / "cache" / "shards" / "a").symlink_to(tmp_path / "outside")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "outside").rglob("*")}
    assert use(tmp_path / "cache")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "outside").rglob("*")} == before


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("shape",), [2**40, 2, 3, 4], "files by its shape"),
        (("shape",), [-8, 2, 3, 4], "a whole number from 0"),
        (("shape",), [], "number of dimensions"),
        (("shape",), "8", "a list"),
        (("chunk_grid", "configuration", "chunk_shape"), [2**40, 2, 3, 4], "its rows need|chunks do not divide"),
        (("data_type",), "float64", "its rows need"),
        (("data_type",), "object", "expected bool or int8"),
        (("codecs",), [], "a list of 1"),
        (("dimension_names",), ["record"], "number of dimensions"),
        (("node_type",), "group", "expected array"),
    ],
)
def test_metadata_that_promise_what_is_not_there(
    sound: Path, tmp_path: Path, place: Place, value: Any, said: str
) -> None:
    shutil.copytree(sound, tmp_path / "cache")
    forger = Forger(tmp_path / "cache")
    forger.write_metadata(changed(forger.metadata, place, value, "replace"))
    with pytest.raises(PeaError, match=said):
        content(Cache.open(tmp_path / "cache"))


def test_a_bomb_in_zstd_is_not_unpacked(make_cache: CacheMaker) -> None:
    """A column of 64 GiB of zeros in a few kilobytes: no array is read that is larger than its samples allow."""
    cache = make_cache.fill(identity(["a"]))
    forger = Forger(Path(cache.directory))
    name = "24x32/captions/en/bytes"
    metadata = json.loads((store_of(cache) / name / "zarr.json").read_text("utf-8"))
    metadata["shape"] = [64 << 30]
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [64 << 30]
    metadata["codecs"][0]["configuration"]["chunk_shape"] = [64 << 20]
    data = json.dumps(metadata).encode()
    (store_of(cache) / name / "zarr.json").write_bytes(data)
    body = bytes(2048 * 24 + 4)
    (store_of(cache) / name / "c" / "0").write_bytes(body)
    record = copy.deepcopy(forger.record)
    for path, stored in ((f"{name}/zarr.json", data), (f"{name}/c/0", body)):
        record["summary"]["num_bytes"] += len(stored) - record["files"][path][0]
        record["files"][path] = [len(stored), hashlib.sha256(stored).hexdigest()]
    forger.write_record(record)
    with pytest.raises(PeaError, match="not a column of texts; got 68719476736 bytes"):
        Cache.open(cache.directory).shards[0].buckets["24x32"].captions("en")


def test_json_that_is_nested_too_deeply_is_one_line(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "cache")
    forger, deep = Forger(tmp_path / "cache"), "[" * 200_000 + "]" * 200_000
    body = f'{{"identity": {deep}'
    (tmp_path / "cache" / FILE_NAME).write_text(f'{body},\n "sha256": "{sha256_text(body)}"\n}}\n')
    with pytest.raises(PeaError, match="the manifest is damaged"):
        Cache.open(tmp_path / "cache")
    shutil.copy(sound / FILE_NAME, tmp_path / "cache" / FILE_NAME)
    body = f'{{"summary":{{}},"summary_sha256":"",\n"files":{deep}'
    forger.record_path.write_text(f'{body},\n"sha256":"{sha256_text(body)}"}}\n')
    with pytest.raises(PeaError, match="the completion record is damaged"):
        Cache.open(tmp_path / "cache")


def test_a_certificate_is_checked_as_well(sound: Path, tmp_path: Path) -> None:
    write_certificate(tmp_path, Certificate("0" * 64, ["a/k"], {"x": {"largest": 0.1, "mean": 0.1}}, 0.01, []))
    assert read_certificate(tmp_path) is not None
    fields = json.loads((tmp_path / "certificate.json").read_text("utf-8"))["certificate"]
    for name, value in (("errors", {"x": {}}), ("samples", "a/k"), ("environment", {"date": 7}), ("threshold", -1)):
        forged = {**fields, name: value}
        document = {"certificate": forged, "sha256": sha256_text(canonical_json(forged))}
        (tmp_path / "certificate.json").write_text(canonical_json(document) + "\n", "utf-8")
        with pytest.raises(PeaError, match=rf"the certificate is damaged; got certificate\.certificate\.{name}"):
            read_certificate(tmp_path)


def test_a_record_is_written_as_it_is_read() -> None:
    """The forger above keeps to the format."""
    record = CompletionRecord({"tar": "a"}, {"x": FileEntry(1, "0" * 8)}, {"b": ["k"]}, [("d", "r", "")])
    assert json.loads(record_to_bytes(record))["files"] == {"x": [1, "0" * 8]}
