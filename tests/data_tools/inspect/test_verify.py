"""``pea inspect verify``: agrees with what was cached, and notices when it is not what the models answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.inspect.verify import choose_samples, verify
from pea.cache import Cache
from pea.cache.audit import audit
from pea.cache.certificate import read_certificate
from pea.collect.teacher_rows import FrozenModels
from pea.config import Config, FoldSketch, resolved_yaml
from pea.errors import CacheError, IdentityError
from stages.cli import main
from tests.tiny_setup import fill_cache, make_setup

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Config:
    sketch = {"kind": "count", "ratio": 4, "values": "int8"}
    return make_setup(tmp_path_factory.mktemp("verify"), "sdxl", sketch=sketch)


def test_the_live_teacher_agrees(setup: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text(resolved_yaml(setup))
    words = ["inspect", "verify", "--config", str(tmp_path / "c.yaml"), "--samples", "5"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "features/mid_block" in out and "noise_pred" in out
    assert out.endswith("samples: cache and live teacher agree (threshold 0.01)\n")
    found = read_certificate(setup.cache_dir("parallel"))
    assert found is not None and found.passed and len(found.samples) >= 5
    assert found.errors["noise_pred"]["largest"] < 1e-5
    assert audit(setup.cache_dir("parallel")).problems == []
    assert main(["inspect", "info", str(setup.cache_dir("parallel"))]) == 0
    assert "verified   agrees with the live teacher on" in capsys.readouterr().out
    path = setup.cache_dir("parallel") / "certificate.json"
    path.write_text(path.read_text().replace("true", "True").replace("cpu", "gpu"))
    assert [each.kind for each in audit(setup.cache_dir("parallel")).problems] == ["manifest"]
    path.unlink()
    assert main([*words, "--corpus", "culture"]) == 0


@pytest.mark.parametrize("values", ["int8", "int4", "bfloat16"])
def test_a_sketched_noise_prediction_is_compared_by_what_it_says(setup: Config, tmp_path: Path, values: Any) -> None:
    cache = setup.cache.model_copy(update={"noise_pred_sketch": FoldSketch(kind="fold", ratio=16, values=values)})
    config = setup.model_copy(update={"run_dir": tmp_path, "cache": cache})
    fill_cache(config, "parallel", Path(setup.corpora.parallel.tars[0]).parent)
    original = FrozenModels.answer

    def nearly(self: FrozenModels, *given: object) -> object:
        rows, rejected = original(self, *given)  # type: ignore[arg-type]
        assert rows is not None
        for name in ("noise_pred/offset", "noise_pred/squared_norm"):  # small differences of large sums
            if name in rows.records:
                rows.records[name] = rows.records[name] + np.float32(0.1)
        return rows, rejected

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrozenModels, "answer", nearly)
        found = verify(config, "parallel", num_samples=3, threshold=0.01)
    assert found.passed and found.errors["noise_pred"]["largest"] < 1e-5, found.problems


def test_another_answer_is_noticed(setup: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    original = FrozenModels.answer

    def faulty(self: FrozenModels, *given: object) -> object:
        rows, rejected = original(self, *given)  # type: ignore[arg-type]
        assert rows is not None
        rows.records["noise_pred"] = rows.records["noise_pred"] * np.float32(1.1)
        rows.records["timestep"] = rows.records["timestep"] + 1
        return rows, rejected

    monkeypatch.setattr(FrozenModels, "answer", faulty)
    found = verify(setup, "parallel", num_samples=2, threshold=0.01)
    assert not found.passed
    assert any("timestep differs" in problem for problem in found.problems)
    assert any("noise_pred: relative error 0.1 above 0.01" in problem for problem in found.problems)


def test_other_models_or_tars_are_refused(setup: Config) -> None:
    tar = Path(setup.corpora.parallel.tars[0].replace("*", "0"))
    data = tar.read_bytes()
    tar.write_bytes(data + bytes(512))
    with pytest.raises(IdentityError, match="not the one that was cached"):
        verify(setup, "parallel", num_samples=4, threshold=0.01)
    tar.write_bytes(data)
    other = setup.model_copy(update={"teacher": setup.teacher.model_copy(update={"dtype": "bfloat16"})})
    with pytest.raises(IdentityError, match=r"teacher\.dtype"):
        verify(other, "parallel", num_samples=4, threshold=0.01)


def test_the_choice_of_samples_is_repeatable_and_spread(setup: Config, tmp_path: Path) -> None:
    cache = Cache.open(setup.cache_dir("parallel"))
    chosen = choose_samples(cache, 4)
    assert chosen == choose_samples(cache, 4)
    assert sorted(chosen) == ["parallel-0", "parallel-1"] and all(len(keys) == 2 for keys in chosen.values())
    empty = Cache.create_or_resume(tmp_path, cache.identity)
    with pytest.raises(CacheError, match="nothing to verify"):
        choose_samples(empty, 4)
