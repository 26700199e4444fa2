"""The teacher as the configuration names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pea.cache import cache_identity
from pea.config import Config
from pea.models.unet import Teacher
from tests.tiny_models import make_checkpoint


@pytest.mark.slow
def test_a_unet_from_elsewhere_is_the_teachers(
    tiny_sdxl: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    other = make_checkpoint(tmp_path / "other", "sdxl", seed=5)

    def identity(**changes: Path) -> dict[str, object]:
        teacher = tiny_sdxl.teacher.model_copy(update=changes)
        return dict(cache_identity(tiny_sdxl.model_copy(update={"teacher": teacher}), "parallel").fields)

    plain, whole, mixed = identity(), identity(checkpoint=other), identity(unet=other)
    assert plain["teacher.unet"] != whole["teacher.unet"] == mixed["teacher.unet"]
    assert {name for name in plain if plain[name] != mixed[name]} == {"teacher.unet"}
    assert {name for name in plain if plain[name] != identity(vae=other)[name]} == {"teacher.vae"}
    teacher = Teacher.from_checkpoint(tiny_sdxl.teacher.model_copy(update={"unet": other / "unet"}).folder)
    expected = Teacher.from_checkpoint(other)
    assert all(one.equal(two) for one, two in zip(teacher.unet.parameters(), expected.unet.parameters(), strict=True))
