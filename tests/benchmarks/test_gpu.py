"""The script for a GPU runs, on tiny models and a CPU, and measures all that it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_everything_is_measured_without_ray(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    code = "import sys; sys.modules['ray'] = None; from tests.benchmarks.gpu import main; sys.exit(main(sys.argv[1:]))"
    words = ["--tiny", "--device", "cpu", "--rounds", "1", "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert "gpu" in result["circumstances"] and "| tiny-sdxl | caching: collector |" in done.stdout
    for teacher in ("tiny-sd15", "tiny-sdxl"):
        values = {row["what"]: row["value"] for row in result["rows"] if row["teacher"] == teacher}
        assert not [each for each in values.values() if isinstance(each, str)], "nothing is left out"
        for what in ("caching: bare", "caching: collector", "training, float32: cached", "training, float32: original"):
            assert values[what] > 0
        assert values["training, float32, checkpointing: online"] > 0 and values["attention phase"] > 0
        assert 0 <= values["training, float32: waiting for data"] <= 100
        assert values["sketches: this device against the CPU, the worst block"] == 0, "it is the CPU"
        assert 0 < values["teacher in float16 against float32: noise_pred"] < 0.05
        fp16, bf16 = (
            values[f"teacher in {dtype} against float32: features, the worst block"]
            for dtype in ("float16", "bfloat16")
        )
        assert fp16 < bf16


@pytest.mark.slow
def test_without_a_gpu_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.benchmarks import gpu

    assert gpu.main(["--device", "cpu"]) == 2
    assert "no GPU here" in capsys.readouterr().err
