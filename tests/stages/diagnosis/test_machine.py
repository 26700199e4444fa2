"""Devices, number formats, threads, libraries."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
import torch

from pea.config import Config
from stages.diagnosis import libraries, machine
from stages.diagnosis.finding import Finding


def _of(topic: str, findings: list[Finding]) -> Finding:
    (found,) = [each for each in findings if each.topic == topic]
    return found


def test_number_formats_are_tried_on_the_cpu(tiny_config: Config) -> None:
    found = _of("cpu", list(machine.look_at_machine(tiny_config)))
    assert "float32 works" in found.what and found.level in ("ok", "warning")


def test_a_format_that_the_training_needs_and_that_does_not_work_is_a_problem(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(module: object, device: torch.device, dtype: torch.dtype) -> float:
        if dtype == torch.float16:
            raise RuntimeError("not implemented\nfor 'Half'")
        return 10.0 if dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(machine, "_pass_seconds", seconds)
    levels = {}
    for precision in ("no", "bf16", "fp16"):
        train = tiny_config.train.model_copy(update={"precision": precision, "device": "cpu"})
        found = _of("cpu", list(machine.look_at_machine(tiny_config.model_copy(update={"train": train}))))
        assert "float16 does not (not implemented for 'Half')" in found.what
        levels[precision] = found.level
    assert levels == {"no": "ok", "bf16": "warning", "fp16": "problem"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_the_caching_needs_is_missed(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def levels(**run: str) -> list[str]:
        settings = tiny_config.cache.run.model_copy(update={"device": "cuda", **run})
        cache = tiny_config.cache.model_copy(update={"run": settings})
        findings = machine.look_at_machine(tiny_config.model_copy(update={"cache": cache}))
        return [each.level for each in findings if each.topic == "cuda"]

    assert "problem" in levels()
    assert "problem" not in levels(ray_address="auto"), "the cluster's nodes may have some"
    assert "problem" not in levels(device="cpu")


def test_a_container_grants_fewer_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 64)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = _of("cpus", list(machine._threads()))
    assert found.level == "warning" and "0.5 for this process" in found.what
    assert found.remedy is not None and "OMP_NUM_THREADS=1" in found.remedy
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert _of("cpus", list(machine._threads())).level == "ok"
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert _of("cpus", list(machine._threads())).level == "warning"


def test_few_open_files_and_little_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(machine, "_LEAST_SHARED_BYTES", 1 << 60)
    monkeypatch.setattr(machine, "_SHARED_MEMORY", tmp_path)
    assert {"open files", "shared memory"} <= {each.topic for each in machine._memory() if each.level == "warning"}


def test_a_torch_that_cannot_be_loaded_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert _of("torch", list(machine.look_at_machine(None))).level == "problem"


def test_no_compiler_is_a_note_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda _: None)
    assert _of("compiler", list(machine._compiler(torch, None))).level == "note"


def test_libraries_that_are_missing_or_too_old(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        libraries.metadata, "requires", lambda _: ["numpy>=999", "nowhere-x", "ruff>=999; extra == 'dev'"]
    )
    found = _of("libraries", list(libraries.look_at_libraries(None)))
    assert found.level == "problem" and "nowhere-x is not installed" in found.what
    assert f"numpy {metadata.version('numpy')} is not >=999" in found.what and "ruff" not in found.what
    monkeypatch.setattr(libraries, "version", lambda name: None if name == "peft" else "1")
    train = tiny_config.train.model_copy(update={"method": "lora"})
    topics = [each.topic for each in libraries.look_at_libraries(tiny_config.model_copy(update={"train": train}))]
    assert "peft" in topics and "peft" not in [each.topic for each in libraries.look_at_libraries(tiny_config)]
