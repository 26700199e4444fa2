"""Training a world's models: parts that are finished are kept, and what is published has no saved steps."""

import hashlib
from pathlib import Path

import pytest

from data_tools.world.things import train_all as things
from data_tools.world.train_all import CHECKPOINTS, SHIPPED, train_all


def _writer(trained: list[str], name: str):
    def train(folder: Path, report) -> float:
        (folder / "step-2").mkdir(parents=True)
        for path in (folder / "step-2/config.json", folder / "config.json"):
            path.write_text(name)
        trained.append(name)
        return 0.5

    return train


def test_finished_parts_are_kept_and_saved_steps_are_not_published(tmp_path):
    trained: list[str] = []

    def plan(work):
        return {name: _writer(trained, name) for name in ("vae", "sd15")}

    for _ in range(2):
        train_all(tmp_path / "out", tmp_path / "work", plan, ["sd15"])
    assert trained == ["vae", "sd15"]
    published = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert published == ["SHA256SUMS", "sd15/config.json"]


@pytest.mark.parametrize(
    ("folder", "shipped"), [(CHECKPOINTS, SHIPPED), (things.CHECKPOINTS, things.PUBLISHED)], ids=["small", "things"]
)
def test_shipped_checkpoints_are_those_of_the_checksums_and_small(folder, shipped):
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS"]
    assert {p.relative_to(folder).parts[0] for p in files} == set(shipped)
    assert {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files} == listed
    assert sum(p.stat().st_size for p in files) < 40e6
