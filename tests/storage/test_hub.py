"""Models of the hub, from a hub on this machine: downloaded once, then found without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pea.config.corpora import TeacherConfig
from pea.errors import CheckpointError
from pea.storage import Location
from pea.storage.hub import is_hub_id, local_folder, model_name
from tests.loopback_hub import SHA, Hub, loopback_hub
from tests.models.encoders.tiny import make_encoder
from tests.models.original_layout import write_single_file
from tests.tiny_models import make_checkpoint

CLIMBING = ("org/name@../x", "org/name@a/../../x", "org/name@/x")
"""Revisions that no git has, and that huggingface_hub would keep outside of its cache."""
READ = """
import sys, torch
from pathlib import Path
from pea.config.student import StudentConfig
from pea.models.encoders.pair import load_encoder
student = StudentConfig(encoder=Path(sys.argv[1]))
encoder = load_encoder(student.encoders)
torch.save(encoder.encode(["a b"])[0], sys.argv[2])
print(encoder.record["name"])
"""


def python(code: str, home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: huggingface_hub reads its environment once."""
    hub = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    env = os.environ | hub | environment
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    folder = make_encoder(tmp_path / "served", "e5")
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    (folder / "modeling_own.py").write_text("raise SystemExit")
    (folder / "model.fp16.safetensors").write_bytes(b"not read")
    return folder


def weights_asked_for(hub: Hub) -> list[str]:
    return sorted({line.split("/")[-1] for line in hub.asked if "/resolve/" in line and ".json" not in line})


@pytest.mark.slow
def test_a_model_is_fetched_once_and_then_found_offline(encoder: Path, tmp_path: Path) -> None:
    place, home = f"org/zh@{SHA}", tmp_path / "home"
    with loopback_hub({"org/zh": encoder}) as hub:
        first = python(READ, home, place, str(tmp_path / "a.pt"), HF_ENDPOINT=hub.url)
        assert first.returncode == 0, first.stderr
        assert weights_asked_for(hub) == ["model.safetensors"]
        gone = hub.url
    assert first.stdout.strip() == f"org/zh@{SHA}"
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": gone}):
        again = python(READ, home, place, str(tmp_path / "b.pt"), **environment)
        assert again.returncode == 0, again.stderr
        assert torch.equal(torch.load(tmp_path / "a.pt"), torch.load(tmp_path / "b.pt"))


@pytest.mark.slow
def test_what_cannot_be_got_is_one_line(encoder: Path, tmp_path: Path) -> None:
    code = """
import sys
from pea.errors import CheckpointError
from pea.storage.hub import local_folder
try:
    local_folder(sys.argv[1])
except CheckpointError as error:
    print(error)
"""
    with loopback_hub({"org/zh": encoder}) as hub:
        for place in ("org/none@main", "org/zh@gone"):
            shown = python(code, tmp_path / "home", place, HF_ENDPOINT=hub.url).stdout
            assert shown.startswith(f"{place}: cannot get this model from the hub") and shown.count("\n") == 1
    shown = python(code, tmp_path / "home", "org/zh@main", HF_HUB_OFFLINE="1").stdout
    assert shown.startswith("org/zh@main: cannot get this model from the hub") and shown.count("\n") == 1


@pytest.mark.slow
def test_of_a_pipeline_that_lends_its_configuration_no_weights_are_fetched(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from pea.config.corpora import TeacherConfig
print(TeacherConfig(checkpoint=Path(sys.argv[1]), config=Path("org/sd@main")).folder)
"""
    file = write_single_file(make_checkpoint(tmp_path / "sd", "sd15"), tmp_path / "model.safetensors")
    with loopback_hub({"org/sd": tmp_path / "sd"}) as hub:
        environment = {"HF_ENDPOINT": hub.url, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = python(code, tmp_path / "home", str(file), **environment)
        assert done.returncode == 0, done.stderr
        assert weights_asked_for(hub) == []
    assert (Path(done.stdout.strip()) / "unet/diffusion_pytorch_model.safetensors").is_file()


@pytest.mark.slow
def test_import_fetches_every_form(encoder: Path, tmp_path: Path) -> None:
    torch.save(load_file(encoder / "model.safetensors"), encoder / "pytorch_model.bin")
    (encoder / "model.safetensors").unlink()
    code = "import sys; from stages.cli import main; sys.exit(main(sys.argv[1:]))"
    with loopback_hub({"org/zh": encoder}) as hub:
        words = ("import", "org/zh@main", "--out", str(tmp_path / "out"))
        done = python(code, tmp_path / "home", *words, HF_ENDPOINT=hub.url)
        assert done.returncode == 0, done.stderr
        assert not any("modeling_own.py" in line for line in hub.asked if "/resolve/" in line)
    assert (tmp_path / "out/model.safetensors").is_file()


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("org/name@main") and is_hub_id(Path("org/name@refs/pr/1"))
    for other in ("org/name", "/org/name@main", "a/b/c@main", "../name@main", "name@main", "org/name@", *CLIMBING):
        assert not is_hub_id(other) and local_folder(other) == Path(other)
    (tmp_path / "org/name@main").mkdir(parents=True)
    assert not is_hub_id("org/name@main")
    cached = tmp_path / "models--org--name" / "snapshots" / SHA
    cached.mkdir(parents=True)
    assert model_name(cached) == f"org/name@{SHA}" and model_name(tmp_path / "org") == "org"
    assert model_name(Path("org/other@v1")) == "org/other@v1"


def test_a_teacher_of_the_hub_keeps_its_name_on_other_machines() -> None:
    teacher = TeacherConfig(checkpoint=Path("org/sd@v1"), unet=Path("mine"))
    moved = teacher.absolute()
    assert moved.checkpoint == Path("org/sd@v1") and moved.unet == Path("mine").resolve()
    assert moved.name == "org/sd@v1 with unet of mine"


def test_parts_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base, other = tmp_path / "base", tmp_path / "other"
    for folder in (base, other):
        for part in ("unet", "vae", "text_encoder"):
            (folder / part).mkdir(parents=True)
            (folder / part / "config.json").write_text(f'"{folder.name} {part}"')
    (base / "model_index.json").write_text("{}")
    whole = TeacherConfig(checkpoint=base)
    assert whole.folder == base and whole.name == "base"
    for unet in (other, other / "unet"):  # of a pipeline, or by itself
        put = TeacherConfig(checkpoint=base, unet=unet, vae=other / "vae").folder
        read = {part: (put / part / "config.json").read_text() for part in ("unet", "vae", "text_encoder")}
        assert read == {"unet": '"other unet"', "vae": '"other vae"', "text_encoder": '"base text_encoder"'}
        assert (put / "model_index.json").read_text() == "{}"
    assert len(list((tmp_path / "cache/pea/teachers").iterdir())) == 1
    (base / "model_index.json").write_text('{"changed": 1}')
    assert (TeacherConfig(checkpoint=base, unet=other).folder / "model_index.json").read_text() == '{"changed": 1}'
    with pytest.raises(CheckpointError, match="no vae here"):
        _ = TeacherConfig(checkpoint=base, vae=tmp_path / "cache").folder
    with pytest.raises(CheckpointError, match="no such model folder"):
        _ = TeacherConfig(checkpoint=tmp_path / "absent", vae=other).folder


def test_a_url_that_is_a_string_is_fetched_as_one(
    bucket: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an adapter in a run folder in a bucket, as a command line or `from_pretrained` is given it."""
    monkeypatch.setenv("PEA_WORK_DIR", str(tmp_path / "work"))
    (bucket / "run/adapter/config.json").write_text("{}")
    for url in (f"{bucket}/run/adapter", f"{bucket}/run/adapter/"):
        assert (local_folder(url) / "config.json").read_text() == "{}"
