"""``pea inspect remove`` by what the corpus says of samples: fields, and lists of URLs and hashes."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from data_tools.inspect.criteria import Condition, OptOut
from pea.cache import Cache
from pea.corpus.metadata import Metadata, read_metadata
from pea.corpus.tars import tar_identity
from pea.errors import CorpusError
from stages.cli import main
from tests.cache_helpers import CacheMaker, identity
from tests.corpus.tar_files import encoded, picture, write_tar

Capture = pytest.CaptureFixture[str]
FIELDS: dict[str, list[dict[str, Any]]] = {
    "a": [
        {"license": "CC-BY-NC", "punsafe": 0.1, "url": "https://Example.org/1#top"},
        {"license": "cc-by", "punsafe": 0.5, "url": "https://example.org/2", "sha256": "AB" * 32},
        {"license": "cc-by", "punsafe": 0.75, "consent": {"given": False}, "url": "https://example.org/3"},
        {"license": "cc-by", "punsafe": "?", "tags": ["cat", "NSFW"]},
    ],
    "b": [{"license": "cc-by-nc"}, {"license": "cc-by", "punsafe": "0.9"}, {"license": "mit"}, {}],
}


def image(tar: str, index: int) -> bytes:
    return encoded(picture(8 + index, 8 + len(tar) + (tar == "b")))


@pytest.fixture
def corpus(tmp_path: Path) -> list[Path]:
    return [
        write_tar(
            tmp_path / f"{tar}.tar",
            [
                (f"{tar}-24x32-{index}.{extension}", data)
                for index, fields in enumerate(rows)
                for extension, data in (
                    ("png", image(tar, index)),
                    ("json", json.dumps({"captions": {"en": "x"}, **fields}).encode()),
                )
            ],
        )
        for tar, rows in FIELDS.items()
    ]


@pytest.fixture
def cache(corpus: list[Path], make_cache: CacheMaker) -> Cache:
    make_cache.rejected = {("b", "p000"): {"b-24x32-1"}}
    tars = [{"name": tar.name, "size_bytes": tar.size_bytes, "sha256": tar.sha256} for tar in map(tar_identity, corpus)]
    return make_cache.fill(identity(["a", "b"], **{"corpus.tars": tars}))


def said(capsys: Capture, cache: Cache, *words: object, code: int = 0) -> str:
    assert main(["inspect", "remove", str(cache.directory), *map(str, words)]) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


def picked(out: str) -> set[str]:
    return {line.split()[0] for line in out.splitlines() if line.endswith(("  removed", "will not be"))}


@pytest.mark.slow
def test_a_condition_says_how_many_of_which_tars_and_takes_them_down(
    cache: Cache, corpus: list[Path], capsys: Capture
) -> None:
    words = ["--where", "license=cc-by-nc", "--where", "punsafe>0.5", "--tars", *corpus]
    assert said(capsys, cache, *words, "--dry-run") == (
        "tar  picked  of them stored  stored\n"
        "a         2               2       4\n"
        "b         2               2       4\n"
        "2 tars of 2\n"
        "license=cc-by-nc: 2 samples; 1 without license\n"
        "punsafe>0.5: 2 samples; 3 without punsafe; 1 whose punsafe is no number\n"
        "would remove 4 samples for good; add --yes to do it\n"
    )
    assert Cache.open(cache.directory).num_samples == 7
    expected = {"a/a-24x32-0", "a/a-24x32-2", "b/b-24x32-0", "b/b-24x32-1"}
    assert picked(said(capsys, cache, *words, "--yes")) == expected
    left = {f"{shard.tar}/{key}" for shard in Cache.open(cache.directory).shards for key in keys_of(shard)}
    assert left == {"a/a-24x32-1", "a/a-24x32-3", "b/b-24x32-2", "b/b-24x32-3"}
    assert main(["inspect", "check", str(cache.directory)]) == 0
    capsys.readouterr()
    assert "picked  of them stored  stored\na         2               0       2" in said(capsys, cache, *words)


def keys_of(shard: Any) -> list[str]:
    return [key for bucket in shard.buckets.values() for key in bucket.keys]


@pytest.mark.slow
def test_an_opt_out_list_finds_urls_hashes_of_the_json_and_of_the_bytes(
    cache: Cache, corpus: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    listed = tmp_path / "optout.txt"
    md5, sha256 = hashlib.md5(image("b", 2)).hexdigest(), hashlib.sha256(image("a", 3)).hexdigest()
    listed.write_text(f"https://example.org/1\n{'ab' * 32}\n{md5.upper()}\n{sha256}\n\nhttps://example.org/none\n")
    out = said(capsys, cache, "--opt-out", listed, "--tars", *corpus)
    assert f"{listed}: 4 samples; 1 of 5 entries are of no sample here\nwould remove 4 samples" in out
    expected = {"a/a-24x32-0", "a/a-24x32-1", "a/a-24x32-3", "b/b-24x32-2"}
    assert picked(said(capsys, cache, "--opt-out", listed, "--tars", *corpus, "--yes")) == expected


def test_a_list_may_be_a_table(tmp_path: Path, cache: Cache, corpus: list[Path], capsys: Capture) -> None:
    listed = tmp_path / "optout.csv"
    listed.write_text("Date,URL,sha256\n2026-01-01,https://example.org/2,\n2026-01-02,," + "cd" * 32 + "\n")
    assert "optout.csv: 1 sample; 1 of 2 entries" in said(capsys, cache, "--opt-out", listed, "--tars", *corpus)
    listed.write_text("name\nhttps://example.org/2\n")
    assert "no column of URLs or hashes" in said(capsys, cache, "--opt-out", listed, "--tars", *corpus, code=2)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_stands_for_the_corpus(kind: str, tmp_path: Path, cache: Cache, capsys: Capture) -> None:
    rows = [{"key": f"a-24x32-{index}", **fields} for index, fields in enumerate(FIELDS["a"])]
    rows.append({"key": "elsewhere", "license": "cc-by-nc"})
    path = tmp_path / f"metadata.{kind}"
    write_table(path, rows)
    out = said(capsys, cache, "--where", "license=cc-by-nc", "--table", path)
    assert "license=cc-by-nc: 1 sample\n4 of 8 samples of the cache have no row in the tables\nwould remove 1 " in out
    write_table(path, [{"key": "elsewhere", "license": "cc-by-nc"}])
    assert "no row names a sample" in said(capsys, cache, "--where", "license=x", "--table", path, code=2)
    write_table(path, [{"name": "a-24x32-0", "license": "cc-by-nc"}])
    assert "a column key" in said(capsys, cache, "--where", "license=x", "--table", path, code=2)


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".parquet":
        plain = [{name: None if row.get(name) is None else str(row[name]) for name in names} for row in rows]
        parquet.write_table(pyarrow.Table.from_pylist(plain), path)
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.slow
def test_a_key_of_several_tars_needs_their_name(tmp_path: Path, capsys: Capture) -> None:
    maker = CacheMaker(tmp_path / "twins")
    maker.keys = lambda _tar, _bucket: ["k0", "k1"]  # type: ignore[method-assign]
    twins, path = maker.fill(identity(["a", "b"])), tmp_path / "m.csv"
    path.write_text("key,license\nk0,nc\n")
    assert "Add a column tar" in said(capsys, twins, "--where", "license=nc", "--table", path, code=2)
    path.write_text("tar,key,license\nb,k0,nc\na,k1,by\n")
    assert picked(said(capsys, twins, "--where", "license=nc", "--table", path, "--yes")) == {"b/k0"}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--where", "licence=cc-by-nc", "--tars", "CORPUS"], "no sample has this field; got licence. They have: "),
        (["--where", "license>3", "--tars", "CORPUS"], "no sample has a number in this field"),
        (["--where", "punsafe>high", "--tars", "CORPUS"], "not a number"),
        (["--where", "punsafe", "--tars", "CORPUS"], "not a condition"),
        (["--where", "license=cc-by-nc"], "the cache itself does not keep what is looked for"),
        (["--opt-out", "LIST"], "the cache itself does not keep what is looked for"),
        (["--tars", "CORPUS"], "no samples are named"),
        (["--where", "license=x", "--tars", "FIRST"], "1 of 2 tars of the cache are not given; got b"),
        (["--where", "license=x", "--tars", "ABSENT"], "no such tar"),
        (["--where", "license=x", "--table", "ABSENT"], "ABSENT: no such table"),
        (["--opt-out", "ABSENT", "--tars", "CORPUS"], "cannot read the list"),
        (["--opt-out", "EMPTY", "--tars", "CORPUS"], "the list is empty"),
        (["--opt-out", "WRONG", "--tars", "CORPUS"], "neither URL nor hash"),
        (["--opt-out", "LIST", "--table", "TABLE"], "no sample has a field url"),
        (["--opt-out", "HASHES", "--table", "TABLE"], "no sample has a hash"),
    ],
)
def test_what_cannot_be_looked_up_is_an_error_and_never_nothing(
    words: list[str], problem: str, cache: Cache, corpus: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    files = {"LIST": "https://example.org/1", "EMPTY": "\n", "WRONG": "cat", "HASHES": "ab" * 32}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "TABLE.csv").write_text("key,license\na-24x32-0,mit\n")
    places: dict[str, list[Path]] = {name: [tmp_path / name] for name in (*files, "ABSENT")}
    places |= {"CORPUS": corpus, "FIRST": corpus[:1], "TABLE": [tmp_path / "TABLE.csv"]}
    given = [place for word in words for place in places.get(word, [word])]  # type: ignore[list-item]
    assert problem in said(capsys, cache, *given, code=2)


def test_none_is_explained(cache: Cache, corpus: list[Path], capsys: Capture) -> None:
    out = said(capsys, cache, "--where", "license=proprietary", "--tars", *corpus)
    values = "the values of license are cc-by (4), CC-BY-NC (1), cc-by-nc (1), mit (1)"
    first, second = out.splitlines()
    assert first == f"license=proprietary: no samples; 1 without license; {values}"
    assert second == "would remove no samples for good; add --yes to do it"


def test_another_tar_of_the_same_name_is_refused(cache: Cache, corpus: list[Path], capsys: Capture) -> None:
    write_tar(corpus[1], [("b-24x32-0.png", image("b", 0)), ("b-24x32-0.json", b'{"license": "nc"}')])
    assert "the tar has changed" in said(capsys, cache, "--where", "license=nc", "--tars", *corpus, code=2)


def test_keys_are_those_of_the_cache(tmp_path: Path) -> None:
    fields = json.dumps({"license": "nc"}).encode()
    tar = write_tar(tmp_path / "t.tar", [("d/a.1.png", image("a", 0)), ("d/a.1.json", fields)])
    reading = {"version": 2, "image_formats": ["PNG"]}
    for rules, key in ((reading, "d/a.1"), (None, "d/a")):  # caches of format 1 end a key at the first dot
        found = list(read_metadata(tar, rules, {"md5"}, tar_identity(tar)))
        assert [(each.key, each.fields, each.digests) for each in found] == [
            (key, {"license": "nc"}, {hashlib.md5(image("a", 0)).hexdigest()})
        ]


@pytest.mark.parametrize(
    ("condition", "keys"),
    [
        ("consent.given=false", [2]),
        ("consent.given!=true", [0, 1, 2, 3]),
        ("tags=nsfw", [3]),
        ("punsafe<=0.5", [0, 1]),
        ("punsafe>=0.75", [2]),
        ("punsafe<0.5", [0]),
        ("punsafe=0.50", [1]),
        ("url=", [3]),
    ],
)
def test_conditions(condition: str, keys: list[int]) -> None:
    samples = [Metadata(str(index), fields) for index, fields in enumerate(FIELDS["a"])]
    asked = Condition(condition)
    assert [int(sample.key) for sample in samples if asked.matches(sample)] == keys


def test_an_entry_is_looked_at_as_a_whole() -> None:
    asked = OptOut("list", ["https://example.org/a?b=1"])
    assert not asked.matches(Metadata("k", {"url": "https://example.org/a"}))
    assert asked.matches(Metadata("k", {"url": "HTTPS://EXAMPLE.org/a?b=1"}))
    with pytest.raises(CorpusError, match="neither URL nor hash"):
        OptOut("list", ["abcdef"])
