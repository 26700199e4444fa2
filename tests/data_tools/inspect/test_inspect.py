"""``pea inspect``: the exact text that a user sees, exit codes, and a start without heavy imports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.inspect.diff import _equal
from data_tools.inspect.show import false_colours
from pea.cache import Cache
from stages.cli import main
from stages.inspect_cache import human_bytes, table
from tests.cache_helpers import CacheMaker, identity

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def filled(make_cache: CacheMaker) -> Cache:
    make_cache.rejected = {("b", "p000"): {"b-24x32-2"}}
    return make_cache.fill(identity(["a", "b"]))


def inspect(capsys: Capture, *words: object, code: int = 0) -> str:
    assert main(["inspect", *map(str, words)]) == code
    return capsys.readouterr().out


INFO = """\
cache      {cache}
complete   yes, 2 of 2 shards
samples    7 kept, 1 dropped (12.50%)  nonfinite_teacher 1
buckets    24x32 7
captions   en 7  zh 7
records    21 (3 draws per sample), {share} without caption
size       # B, # B per record, compressed #x
timesteps  =  # to # records per 50 steps

stored                 raw  on disk  ratio  B/record
caption_dropped       21 B     # B  #x         #
captions               # B     # B  #x         #
features/mid_block   924 B     # B  #x         #
keys                   # B     # B  #x         #
latents_mean         672 B     # B  #x         #
latents_std          672 B     # B  #x         #
noise_checksum        84 B     # B  #x         #
noise_pred           1.0 kB    # B  #x         #
record_id            168 B     # B  #x         #
time_ids             336 B     # B  #x         #
timestep             168 B     # B  #x         #

identity {digest}
  cache.blocks                 ['mid_block']
  cache.buckets                [[24, 32], [32, 24]]
  cache.caption_drop_rate      0.1
  cache.draws_per_sample       3
  cache.seed                   0
  cache.sketches               {{'mid_block': {{'kind': 'exact'}}}}
  corpus.tars                  2 tars, 14 B
  teacher.scheduler            {{'num_train_timesteps': 1000}}
  teacher.unet                 0000000000000000
"""


def test_info(filled: Cache, capsys: Capture) -> None:
    out = inspect(capsys, "info", filled.directory)
    facts = json.loads(inspect(capsys, "info", filled.directory, "--json"))
    share = f"{facts['records']['caption_dropped_share']:.1%}"
    expected = INFO.format(cache=filled.directory, digest=filled.identity.digest[:16], share=share)
    assert re.fullmatch(pattern(expected), out), out
    assert sum(facts["timesteps"]["counts"]) == 21
    stored = sum(path.stat().st_size for path in Path(filled.directory).rglob("*.zarr/**/*") if path.is_file())
    assert facts["bytes"]["stored"] == stored


def pattern(text: str) -> str:
    """``#`` stands for what depends on the version of the compressor, ``=`` for a bar chart."""
    text = re.sub(" +", " ", text)
    text = re.escape(text).replace(r"\#\ B", r"[\d.]+ k?B").replace(r"\#", r"[\d.]+").replace("=", "[ ▁▂▃▄▅▆▇█]+")
    return text.replace(r"\ ", " +")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples.kept", "7"),
        ("complete", "true"),
        ("identity.teacher.unet", "0" * 64),
        ("bytes.arrays.features/mid_block/values.raw", "840"),
        ("languages", '{"en": 7, "zh": 7}'),
    ],
)
def test_info_of_one_value(filled: Cache, capsys: Capture, name: str, value: str) -> None:
    assert inspect(capsys, "info", filled.directory, "--get", name) == value + "\n"


def test_info_of_an_unknown_value(filled: Cache, capsys: Capture) -> None:
    assert main(["inspect", "info", str(filled.directory), "--get", "samples.lost"]) == 2
    assert "no such value" in capsys.readouterr().err


def test_ls(make_cache: CacheMaker, filled: Cache, capsys: Capture) -> None:
    (filled.shard_dir("a") / "p000.json").delete()
    lines = inspect(capsys, "ls", filled.directory).splitlines()
    assert [line.split()[:6] for line in lines] == [
        ["shard", "kind", "draws", "samples", "records", "dropped"],
        ["a/p000", "whole", "0..3", "unfinished"],
        ["b/p000", "whole", "0..3", "3", "9", "1"],
    ]
    assert inspect(capsys, "ls", filled.directory, "b") == (
        "b/b-24x32-0  24x32  caption b-24x32-0\n"
        "b/b-24x32-1  24x32  caption b-24x32-1\n"
        "b/b-24x32-3  24x32  caption b-24x32-3\n"
        "b/b-24x32-2  dropped: nonfinite_teacher  made up\n"
    )
    assert main(["inspect", "ls", str(filled.directory), "a"]) == 2


SHOW = """\
a/a-24x32-1
bucket 24x32
en: caption a-24x32-1
zh: 说明 a-24x32-1
original {ids[0]}x{ids[1]} px, cut at {ids[2]},{ids[3]}, to {ids[4]}x{ids[5]} px

draw  timestep  caption  noise            record
0          {steps[0]:>3}     kept     ok  {ids16[0]}
1          {steps[1]:>3}     kept     ok  {ids16[1]}
2          {steps[2]:>3}     kept     ok  {ids16[2]}
"""


def test_show(filled: Cache, capsys: Capture) -> None:
    out = inspect(capsys, "show", filled.directory, "a/a-24x32-1")
    bucket = filled.shards[0].buckets["24x32"]
    rows = bucket.read(["timestep", "record_id"], 3, 6)
    ids16 = [f"{number:016x}" for number in rows["record_id"]]
    time_ids = bucket.read(["time_ids"], 1, 2)["time_ids"][0].tolist()
    head = SHOW.format(ids=time_ids, steps=rows["timestep"].tolist(), ids16=ids16)
    assert out.startswith(head)
    latents = bucket.read(["latents_mean"], 1, 2)["latents_mean"]
    line = next(line for line in out.splitlines() if line.startswith("latents_mean"))
    assert line.split() == [
        "latents_mean", "float32", "2x3x4",
        *(f"{n:.4g}" for n in (latents.mean(dtype=float), latents.std(dtype=float), latents.min(), latents.max())),
    ]  # fmt: skip
    assert inspect(capsys, "show", filled.directory, "a-24x32-1") == out


@pytest.mark.parametrize(
    ("key", "message"),
    [("none", "no such sample"), ("b/b-24x32-2", "the sample was dropped; got nonfinite_teacher made up")],
)
def test_show_of_what_is_not_there(filled: Cache, capsys: Capture, key: str, message: str) -> None:
    assert main(["inspect", "show", str(filled.directory), key]) == 2
    assert message in capsys.readouterr().err


def test_show_writes_pictures(filled: Cache, capsys: Capture, tmp_path: Path) -> None:
    out = inspect(capsys, "show", filled.directory, "a/a-24x32-1", "--pictures", tmp_path / "p")
    names = sorted(path.name for path in (tmp_path / "p").iterdir())
    assert names == ["latent.png", "mid_block.draw0.png", "mid_block.draw1.png", "mid_block.draw2.png"]
    assert out.count("wrote ") == 4
    with Image.open(tmp_path / "p" / "latent.png") as picture:
        assert picture.size == (256, 192)


@pytest.mark.slow
def test_repair_clears_what_nobody_owns_where_nothing_else_is_wrong(filled: Cache, capsys: Capture) -> None:
    stray = Path(filled.shard_dir("a")) / "p000-0123456789ab.zarr"
    stray.mkdir()
    (stray / "zarr.json").write_text("{}")
    assert "1 problem" in inspect(capsys, "check", filled.directory, code=1)
    assert main(["inspect", "check", str(filled.directory), "--repair"]) == 1
    assert "what nobody owns is cleared" in capsys.readouterr().err
    assert not stray.exists() and "no problems" in inspect(capsys, "check", filled.directory)


def test_a_list_of_samples_is_taken_down(filled: Cache, tmp_path: Path, capsys: Capture) -> None:
    keys = [f"a/{key}" for key in next(iter(filled.shards[0].buckets.values())).keys]
    listed = tmp_path / "keys.txt"
    listed.write_text("\ufeff" + "\n".join([*keys, "", keys[0]]) + "\n", "utf-8")
    summary = Path(filled.directory) / "run_summary.json"
    summary.write_text(json.dumps({"failed": {"a": f"the worker process died at sample {keys[0][2:]}", "b": "x"}}))
    assert f"would remove {len(keys)} samples" in inspect(capsys, "remove", filled.directory, "--from", listed)
    said = inspect(capsys, "remove", filled.directory, "--from", listed, "--yes")
    assert said.count("  removed") == len(keys)
    assert json.loads(summary.read_text())["failed"] == {"a": "at a sample that was taken down", "b": "x"}
    for words in (["--from", tmp_path / "absent"], []):
        assert main(["inspect", "remove", str(filled.directory), *map(str, words)]) == 2


@pytest.mark.slow
def test_check_and_repair(make_cache: CacheMaker, filled: Cache, capsys: Capture) -> None:
    healthy = inspect(capsys, "check", filled.directory)
    assert re.fullmatch(r"2 shards, 7 samples, \d+ files, [\d.]+ kB: no problems\n", healthy)
    victim = next(Path(filled.shard_dir("b")).rglob("noise_pred/zarr.json"))
    victim.unlink()
    damaged = inspect(capsys, "check", filled.directory, code=1).splitlines()
    assert damaged[0] == f"damaged: {victim}: No such file or directory"
    assert damaged[1].endswith(": 1 problem")
    assert json.loads(inspect(capsys, "check", filled.directory, "--json", code=1))["problems"][0]["tar"] == "b"
    assert main(["inspect", "check", str(filled.directory), "--repair"]) == 1
    assert "re-queued 1 shard: b/p000; run `pea cache`" in capsys.readouterr().err
    make_cache.fill(identity(["a", "b"]))
    assert inspect(capsys, "check", filled.directory) == healthy


@pytest.mark.slow
def test_diff(make_cache: CacheMaker, filled: Cache, capsys: Capture, tmp_path: Path) -> None:
    other = CacheMaker(tmp_path / "other").fill(identity(["a", "b"]))
    assert inspect(capsys, "diff", filled.directory, filled.directory) == "no differences\n"
    assert inspect(capsys, "diff", filled.directory, other.directory, code=1) == (
        "b/24x32/b-24x32-2: only in the second\n"
    )
    changed = CacheMaker(tmp_path / "changed").fill(identity(["a", "c"], draws=2, **{"cache.seed": 1}))
    assert inspect(capsys, "diff", filled.directory, changed.directory, code=1).splitlines() == [
        "identity cache.seed: 0 | 1",
        "identity cache.draws_per_sample: 3 | 2",
        f"b: only in {filled.directory}",
        f"c: only in {changed.directory}",
    ]


@pytest.mark.slow
def test_diff_prints_what_differs_and_no_equal_values(capsys: Capture, tmp_path: Path) -> None:
    """A field that one of two caches lacks, and values deep inside of a field."""
    scheduler = {"num_train_timesteps": 1000, "steps_offset": 1}
    fields = {"corpus.reading": {"version": 2, "image_formats": ["PNG"]}, "teacher.scheduler": scheduler}
    one = CacheMaker(tmp_path / "one").fill(identity(["a"], **fields))
    changed = {"teacher.scheduler": scheduler | {"steps_offset": 0}, "cache.new": 1}
    other = CacheMaker(tmp_path / "other").fill(identity(["a"], **changed))
    assert inspect(capsys, "diff", one.directory, other.directory, code=1).splitlines() == [
        "identity teacher.scheduler.steps_offset: 1 | 0",
        "identity corpus.reading: {'version': 2, 'image_formats': ['PNG']} | (nothing)",
        "identity cache.new: (nothing) | 1",
    ]
    assert inspect(capsys, "diff", other.directory, one.directory, code=1).splitlines() == [
        "identity teacher.scheduler.steps_offset: 0 | 1",
        "identity cache.new: 1 | (nothing)",
        "identity corpus.reading: (nothing) | {'version': 2, 'image_formats': ['PNG']}",
    ]


def test_values_that_are_no_numbers_are_equal_to_themselves() -> None:
    one, other = (np.array([[[1.0, np.nan, 2.0]]], dtype=np.float32) for _ in range(2))
    assert _equal(one, other).all()
    other[0, 0, 1] = 0
    assert _equal(one, other).tolist() == [[[True, False, True]]]


@pytest.mark.slow
def test_what_was_left_out_by_reason(make_cache: CacheMaker, capsys: Capture) -> None:
    make_cache.rejected = {
        ("a", "p000"): {"a-24x32-0"},
        ("b", "p000"): {"b-24x32-2", "b-24x32-3"},
        ("b", "p001"): {"b-24x32-3", "b-24x32-1"},
    }
    make_cache.fill(identity(draws=2))
    cache = make_cache.fill(identity(), extend=True)
    why = "nonfinite_teacher: {} (a text encoder or the UNet answered NaN, infinity, or more than its type holds)"
    named = [f"  {key}  made up" for key in ("a/a-24x32-0", "b/b-24x32-2", "b/b-24x32-3", "b/b-24x32-1")]
    assert inspect(capsys, "ls", cache.directory, "--dropped").splitlines() == [
        why.format("4 samples"),
        *named,
        f"4 samples left out of {cache.directory}",
    ]
    only = inspect(capsys, "ls", cache.directory, "a", "--dropped").splitlines()
    assert only == [why.format("1 sample"), named[0], f"1 sample left out of {cache.directory}"]
    assert "aspect_ratio: no samples" in inspect(capsys, "ls", cache.directory, "--dropped", "aspect_ratio")
    assert main(["inspect", "ls", str(cache.directory), "z", "--dropped"]) == 2
    assert "no such tar in the cache; got z" in capsys.readouterr().err
    assert main(["inspect", "ls", str(cache.directory), "--dropped", "age"]) == 2
    assert "no such reason; expected one of aspect_ratio, " in capsys.readouterr().err


@pytest.mark.slow
def test_diff_sees_through_parts_and_finds_changed_rows(
    make_cache: CacheMaker, capsys: Capture, tmp_path: Path
) -> None:
    make_cache.fill(identity(["a"], draws=2))
    grown = make_cache.fill(identity(["a"]), extend=True)
    at_once = CacheMaker(tmp_path / "other").fill(identity(["a"]))
    assert inspect(capsys, "diff", grown.directory, at_once.directory) == "no differences\n"
    maker = CacheMaker(tmp_path / "changed")
    cache = Cache.create_or_resume(maker.directory, identity(["a"]))
    real = maker.all_arrays
    original = maker.append

    def shifted(writer, plan, bucket, keys):  # type: ignore[no-untyped-def]
        append = writer.append
        writer.append = lambda name, **given: append(
            name, **{**given, "samples": {**given["samples"], "latents_std": given["samples"]["latents_std"] + 1}}
        )
        original(writer, plan, bucket, keys)
        writer.append = append

    maker.append = shifted  # type: ignore[method-assign]
    maker.write(cache, cache.plan()[0])
    assert real is not None
    out = inspect(capsys, "diff", at_once.directory, maker.directory, code=1)
    assert out == "a/24x32/latents_std: 4 of 4 rows differ, by up to 1, the first of a-24x32-0\n"


def test_remove(filled: Cache, capsys: Capture) -> None:
    words = ["remove", filled.directory, "a/a-24x32-1", "a/never"]
    said = "a/never  is not stored; would be kept out\nwould remove 1 sample for good; add --yes to do it\n"
    assert inspect(capsys, *words) == said
    assert Cache.open(filled.directory).num_samples == 7
    assert inspect(capsys, *words, "--yes") == "a/a-24x32-1  removed\na/never  was not stored; will not be\n"
    assert Cache.open(filled.directory).num_samples == 6
    assert "removed    2 taken down" in inspect(capsys, "info", filled.directory)
    assert main(["inspect", "remove", str(filled.directory), "z/k"]) == 2


def test_a_run_folder_stands_for_its_parallel_cache(tmp_path: Path, capsys: Capture) -> None:
    CacheMaker(tmp_path / "run" / "cache" / "parallel").fill(identity(["a"]))
    assert inspect(capsys, "info", tmp_path / "run", "--get", "samples.kept") == "4\n"
    assert main(["inspect", "info", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_the_inspector_starts_light(filled: Cache) -> None:
    code = (
        "import sys; from stages.cli import main;"
        f"main(['inspect', 'info', {str(filled.directory)!r}]); main(['inspect', 'check', {str(filled.directory)!r}]);"
        "print({'torch', 'ray', 'diffusers', 'transformers', 'zarr'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "set()"


def test_every_subcommand_has_help(capsys: Capture) -> None:
    for name in ("info", "ls", "show", "check", "diff", "remove"):
        with pytest.raises(SystemExit) as stop:
            main(["inspect", name, "--help"])
        assert stop.value.code == 0
        assert "CACHE" in capsys.readouterr().out


def test_text_helpers() -> None:
    assert [human_bytes(n) for n in (0, 999, 1000, 51.1e6, 2.5e15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "51.1 MB",
        "2500.0 TB",
    ]
    assert table(["a", "bb"], [["ccc", 1], ["d", 222]]) == "a     bb\nccc    1\nd    222"


def test_false_colours_do_not_depend_on_sign_conventions() -> None:
    values = np.random.default_rng(0).normal(size=(5, 4, 6)).astype(np.float32)
    picture = false_colours(values)
    assert picture.shape == (4, 6, 3) and picture.dtype == np.uint8
    assert np.array_equal(false_colours(values + 3), picture)
    assert false_colours(values[:1]).shape == (4, 6, 3)
