"""The run folder of a command: itself on a disk, a copy that is published where it is a URL; never a folder `s3:`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pea.config import Config, load_config
from pea.errors import ConfigError, DiskFullError, LeaseHeldError, warn
from pea.storage import Location
from pea.storage.leases import take
from pea.storage.work import fetched
from stages.cli import main
from stages.command.console import Console, bold
from stages.command.run_folder import publish_so_far, working

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEA_WORK_DIR", str(tmp_path / "work"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    raw: dict[str, Any] = {
        "run_dir": "run",
        "teacher": {"checkpoint": "teacher"},
        "corpora": {"parallel": {"tars": ["*.tar"]}},
        "student": {"encoder": "zh"},
        "evaluate": {"prompts": {"general": "{run_dir}/prompts.jsonl"}},
    }
    (tmp_path / "setup.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    return tmp_path / "setup.yaml"


def test_on_a_disk_it_is_itself(setup: Path) -> None:
    config = load_config(setup)
    with working(config, "a test") as here:
        assert here == config
        publish_so_far(here)
    assert not (setup.parent / "work").exists()


def test_a_submitted_job_leaves_nothing_in_its_copy_of_the_project(
    setup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_0"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(ConfigError, match=r"run_dir: a submitted job runs in a temporary copy .* got run$"):
        working(load_config(setup), "a test").__enter__()
    with pytest.raises(ConfigError, match="cache_root: a submitted job"):
        working(load_config(setup, [f"run_dir={tmp_path}/run", "cache_root=c"]), "a test").__enter__()
    with working(load_config(setup, [f"run_dir={tmp_path}/run"]), "a test") as here:
        assert here.run_dir == tmp_path / "run"


def test_in_a_bucket_it_is_a_copy_that_is_published(setup: Path, bucket: Location) -> None:
    config = load_config(setup, [f"run_dir={bucket}/run"])
    (bucket / "run/prompts.jsonl").write_text("prompts")
    with working(config, "a test") as here:
        assert isinstance(here.run_dir, Path) and here.cache_dir("parallel") == bucket / "run/cache/parallel"
        assert here.evaluate.prompts["general"].read_text() == "prompts"
        (here.run_dir / "log.txt").write_text("1")
        publish_so_far(here)
        assert (bucket / "run/log.txt").read_text() == "1"
        (here.run_dir / "log.txt").write_text("2")
        with working(config, "a reader", publishes=False) as read:
            assert (read.run_dir / "log.txt").read_text() == "1" and read.run_dir != here.run_dir
            (read.run_dir / "log.txt").write_text("3")
        with pytest.raises(LeaseHeldError, match="a test"), working(config, "another"):
            pass
    assert (bucket / "run/log.txt").read_text() == "2"
    assert {each.name for each in (bucket / "run").entries()} == {"log.txt", "prompts.jsonl"}
    with pytest.raises(RuntimeError, match="failed"), working(config, "a test") as here:
        (here.run_dir / "log.txt").write_text("4")
        raise RuntimeError("failed")
    assert (bucket / "run/log.txt").read_text() == "2"
    with take(bucket / "run/run", "another machine"), pytest.raises(LeaseHeldError, match="another machine"):
        working(config, "a test").__enter__()


def test_what_is_said_of_the_copy_names_the_bucket(
    setup: Path, bucket: Location, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines, errors and warnings alike; of a copy that cannot be written, the disk is named."""
    config = load_config(setup, [f"run_dir={bucket}/run"])
    with working(config, "a test") as here:
        Console().print(f"adapter in {here.adapter_dir}: done")
        Console().print(bold("a line", f" of {here.run_dir}"))
        assert f"{bucket}/run/adapter: no adapter" in str(ConfigError("no adapter", where=here.adapter_dir))
        assert f"Look into {bucket}/run." in str(ConfigError("none", remedy=f"Look into {here.run_dir}."))
        assert str(here.run_dir) in str(DiskFullError("full", where=here.run_dir))
        with pytest.warns(UserWarning, match=f"{bucket}/run/adapter is old"):
            warn(f"{here.adapter_dir} is old")
        beside = here.run_dir.with_name(f"{here.run_dir.name}-2")
        assert str(beside) in str(ConfigError("another folder", where=beside))
        (bucket / "zh/model.json").write_text("x")
        assert str(ConfigError("no encoder", where=fetched(bucket / "zh"))).startswith(f"{bucket}/zh: no encoder")
    said = capsys.readouterr().out
    assert said == f"adapter in {bucket}/run/adapter: done\na line of {bucket}/run\n"


def test_only_the_first_process_of_a_training_publishes(
    setup: Path, bucket: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(setup, [f"run_dir={bucket}/run"])
    with working(config, "first") as first:
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("LOCAL_RANK", "1")
        with working(config, "second") as second:
            assert second.run_dir != first.run_dir
            (second.run_dir / "log.txt").write_text("of the second")
    assert not list((bucket / "run").entries())


PLACES = (
    "run_dir",
    "cache_root",
    "teacher.checkpoint",
    "teacher.unet",
    "teacher.vae",
    "student.encoder",
    "evaluate.judge",
    "evaluate.clip",
    "evaluate.prompts.general",
)


@pytest.mark.parametrize("name", PLACES)
def test_a_url_stays_a_url_and_others_are_refused(setup: Path, name: str) -> None:
    def value(config: Config) -> Any:
        found: Any = config
        for part in name.split("."):
            found = found[part] if isinstance(found, dict) else getattr(found, part)
        return found

    assert value(load_config(setup, [f"{name}=s3://bucket/folder"])) == Location.parse("s3://bucket/folder")
    assert value(load_config(setup, [f"{name}=file:///folder"])) == Path("/folder")
    for wrong in ("s3:/bucket/folder", "http://host/folder", "pipe:cat x", "s3://key:secret@bucket/x"):
        with pytest.raises(ConfigError) as caught:
            load_config(setup, [f"{name}={wrong}"])
        assert name in str(caught.value) and "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "x", "--config", "SETUP", "--out", "s3://bucket/x"),
        ("cache", "--config", "s3://bucket/setup.yaml"),
        ("inspect", "export", "cache", "--html", "s3://bucket/page.html"),
        ("inspect", "show", "cache", "a/b", "--pictures", "s3://bucket/pictures"),
        ("convert", "weights.bin", "--out", "gs://bucket/x"),
        ("run", "az://bucket/pipeline.yaml"),
        ("import", "s3://bucket/encoder", "--out", "x"),
    ],
)
def test_arguments_that_name_local_files_refuse_urls(setup: Path, words: tuple[str, ...], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(setup) if word == "SETUP" else word for word in words])
    assert ended.value.code == 2 and "a URL cannot stand here" in capsys.readouterr().err
    assert not list(Path.cwd().iterdir())


@pytest.mark.slow
def test_the_small_world_writes_into_a_bucket(bucket: Location, tmp_path: Path, capsys: Capture) -> None:
    from data_tools.world.corpora import write_corpora

    options: dict[str, Any] = {"num_parallel": 3, "languages": ["zh"], "seed": 1, "per_concept": 1}
    written = write_corpora(bucket / "corpora", **options)
    assert written == write_corpora(tmp_path / "corpora", **options)
    assert write_corpora(bucket / "corpora", **options) == []
    for entry in (bucket / "corpora").entries(recursive=True):
        assert (bucket / "corpora" / entry.name).read_bytes() == (tmp_path / "corpora" / entry.name).read_bytes()
