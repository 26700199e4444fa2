"""Every stage on a setup of which next to nothing is left: an answer, or one line."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from pea.config import Config, resolved_yaml
from stages import sketch_measurements
from stages.cli import main
from tests.tiny_setup import fill_cache, write_tar

COMMANDS = (
    ["plan"],
    ["rd", "--records", "4"],
    ["train"],
    ["report"],
    ["eval"],
    ["inspect", "verify", "--samples", "2"],
)


def write_broken_tar(path: Path) -> None:
    """Three samples, of which no image can be decoded."""
    with tarfile.open(path, "w") as tar:
        for number in range(3):
            captions = json.dumps({"captions": {"en": "a cat", "zh": "一只猫"}}).encode()
            for name, data in ((f"{number}.png", b"no image"), (f"{number}.json", captions)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _setup(config: Config, folder: Path, state: str) -> Config:
    corpora, tar = config.corpora, folder / "p" / "some.tar"
    tar.parent.mkdir()
    if state == "no culture":
        corpora = corpora.model_copy(update={"culture": None})
    elif state == "culture dropped":
        assert corpora.culture is not None
        write_broken_tar(tar)
        corpora = corpora.model_copy(update={"culture": corpora.culture.model_copy(update={"tars": (str(tar),)})})
    else:
        write_broken_tar(tar) if state == "all dropped" else write_tar(tar, range(1), ("en", "zh"))
        corpora = corpora.model_copy(update={"parallel": corpora.parallel.model_copy(update={"tars": (str(tar),)})})
    train = config.train.model_copy(update={"steps": 2, "save_every_steps": 2})
    changed = config.model_copy(update={"run_dir": folder / "run", "corpora": corpora, "train": train})
    for corpus in ("parallel", "culture"):
        patterns = getattr(getattr(corpora, corpus), "tars", None)
        if patterns is not None:
            fill_cache(changed, corpus, Path(patterns[0]).parent)
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("state", ["all dropped", "one sample", "no culture", "culture dropped"])
def test_every_stage_answers_or_says_why_not(
    tiny_sdxl: Config,
    tmp_path: Path,
    state: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(resolved_yaml(_setup(tiny_sdxl, tmp_path, state)))
    monkeypatch.setattr(sketch_measurements, "SETTINGS", sketch_measurements.SETTINGS[-2:])
    codes = {}
    for command in COMMANDS:
        capsys.readouterr()
        codes[command[0]] = main([*command, "--config", str(config)])
        said = capsys.readouterr().err
        assert "Traceback" not in said, said
        assert codes[command[0]] == 0 or "pea: error: " in said.splitlines()[-1]
    rd = 2 if state == "all dropped" else 0
    trains = 2 if state in ("all dropped", "culture dropped") else 0  # a share of nothing is refused
    assert codes == {"plan": 0, "rd": rd, "train": trains, "report": 2, "eval": 2, "inspect": rd}
