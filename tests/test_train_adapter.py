"""The training loop: equal to the original, resumable at any moment, honest about what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file

from pea import train_state
from pea.adapter import PEA
from pea.config import Config, resolved_yaml
from pea.errors import CacheError, ConfigError, DiskFullError, IdentityError, TrainingError
from pea.pipeline import PEAPrompt
from stages import train_adapter
from stages.train_setup import prepare
from tests.tiny_setup import make_setup

QUIET = Console(quiet=True)
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return make_setup(tmp_path_factory.mktemp("train"), "sdxl")


def _variant(config: Config, folder: Path, **train: Any) -> Config:
    """The same caches, in a run folder of its own, with other training settings."""
    run_dir = folder / "run"
    run_dir.mkdir(parents=True, exist_ok=True)
    if not (run_dir / "cache").exists():
        (run_dir / "cache").symlink_to(config.run_dir / "cache")
    return config.model_copy(update={"run_dir": run_dir, "train": config.train.model_copy(update=train)})


def _weights(config: Config) -> dict[str, torch.Tensor]:
    return load_file(config.adapter_dir / "diffusion_pytorch_model.safetensors")


def _rows(config: Config) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.adapter_dir / "train_log.jsonl").read_text().splitlines()]


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_cached_training_follows_live_training(config: Config, tmp_path: Path) -> None:
    """The same losses over 50 steps, and the same adapter."""
    results = {}
    for targets in ("cached", "live"):
        variant = _variant(
            config, tmp_path / targets, steps=50, targets=targets, log_every_steps=1, save_every_steps=50
        )
        train_adapter.run(variant, QUIET)
        results[targets] = ([row["loss"] for row in _rows(variant)], _weights(variant))
    assert results["cached"][0] == pytest.approx(results["live"][0], rel=1e-5)
    for name, tensor in results["live"][1].items():
        torch.testing.assert_close(results["cached"][1][name], tensor, rtol=1e-3, atol=1e-4)


def test_losses_of_20_steps_are_the_recorded_ones(config: Config, tmp_path: Path) -> None:
    """A refactoring must not change them. Where the method changes on purpose: PEA_RECORD_GOLDEN=1 records anew."""
    variant = _variant(config, tmp_path, steps=20, log_every_steps=1, save_every_steps=20)
    train_adapter.run(variant, QUIET)
    losses = [row["loss"] for row in _rows(variant)]
    golden = Path(__file__).parent / "golden/train_losses.json"
    if os.environ.get("PEA_RECORD_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(json.dumps(losses, indent=1) + "\n")
    assert losses == pytest.approx(json.loads(golden.read_text()), rel=1e-4)


def test_what_is_published(config: Config, tmp_path: Path) -> None:
    variant = _variant(config, tmp_path)
    summary = train_adapter.run(variant, QUIET)
    assert summary["steps"] == 4 and summary["records"] == 48 and summary["skipped_steps"] == 0
    assert json.loads((variant.adapter_dir / "train_summary.json").read_text()) == summary
    assert [row["step"] for row in _rows(variant)] == [1, 2, 3, 4]
    card = (variant.adapter_dir / "README.md").read_text()
    digest = PEA.load(variant.adapter_dir).config.cache_identity
    assert len(digest) == 64 and digest in card
    embeds = PEAPrompt.from_pretrained(variant.adapter_dir, variant.student.encoder)("一只猫")
    assert embeds["prompt_embeds"].shape == (1, 10, 32) and embeds["pooled_prompt_embeds"].shape == (1, 12)
    assert not list(variant.adapter_dir.glob(".*"))


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.5, "gradient_accumulation_steps": 2, "num_workers": 2}])
def test_a_resumed_run_equals_an_unbroken_one(config: Config, tmp_path: Path, options: dict[str, Any]) -> None:
    whole = _variant(config, tmp_path / "whole", steps=6, log_every_steps=2, **options)
    train_adapter.run(whole, QUIET)
    broken = _variant(config, tmp_path / "broken", steps=6, log_every_steps=2, **options)
    train_adapter.run(broken, QUIET)
    for path in (broken.adapter_dir / "states").glob("step-00000006"):
        shutil.rmtree(path)
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        (broken.adapter_dir / name).unlink()
    train_adapter.run(broken, QUIET)
    assert _same(_weights(whole), _weights(broken))
    without_time = [
        [{k: v for k, v in r.items() if "_s" not in k and k != "seconds"} for r in _rows(c)] for c in (whole, broken)
    ]
    assert without_time[0] == without_time[1]


def test_a_finished_run_is_not_trained_again(config: Config, tmp_path: Path) -> None:
    variant = _variant(config, tmp_path)
    first = train_adapter.run(variant, QUIET)
    assert train_adapter.run(variant, QUIET)["seconds"] == first["seconds"]


def test_another_run_is_not_taken_up(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_adapter.run(_variant(config, tmp_path), QUIET)
    changed = _variant(config, tmp_path, learning_rate=0.5)
    with pytest.raises(TrainingError, match=r"another run \(train\.learning_rate\)"):
        train_adapter.run(
            changed.model_copy(update={"train": changed.train.model_copy(update={"resume": "must"})}), QUIET
        )
    train_adapter.run(changed, Console())
    assert "training anew: the saved state is of another run (train.learning_rate)" in " ".join(
        capsys.readouterr().out.split()
    )
    assert len(_rows(changed)) == 4


def test_a_run_without_finite_losses_stops_and_names_records(config: Config, tmp_path: Path) -> None:
    variant = _variant(config, tmp_path, max_skipped_steps=2, block_weights={"mid_block": 1e38}, feature_weight=1e38)
    with pytest.raises(TrainingError, match=r"no finite loss in 2 consecutive steps.*records parallel-\d/\d{4}#\d"):
        train_adapter.run(variant, QUIET)
    assert not (variant.adapter_dir / "config.json").exists()


def test_single_steps_without_finite_loss_are_skipped_and_counted(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = train_adapter.student_losses, []

    def sometimes_nan(*args: Any, **kwargs: Any) -> Any:
        losses = original(*args, **kwargs)
        calls.append(losses)
        return (
            losses
            if len(calls) != 2
            else type(losses)(losses.total * float("nan"), losses.noise_pred, {}, losses.diffusion)
        )

    monkeypatch.setattr(train_adapter, "student_losses", sometimes_nan)
    summary = train_adapter.run(_variant(config, tmp_path), QUIET)
    assert summary["skipped_steps"] == 1 and summary["steps"] == 4


def test_what_does_not_fit_is_refused(config: Config, tmp_path: Path) -> None:
    device = torch.device("cpu")
    variant = _variant(config, tmp_path)
    other_seed = variant.model_copy(update={"cache": variant.cache.model_copy(update={"seed": 5})})
    with pytest.raises(IdentityError, match=r"cache\.seed: the cache has 0, wanted 5"):
        prepare(other_seed, device)
    japanese = variant.model_copy(update={"student": variant.student.model_copy(update={"language": "ja"})})
    with pytest.raises(CacheError, match="no caption in 'ja'"):
        prepare(japanese, device)
    with pytest.raises(ConfigError, match=r"train\.block_weights.*got attic"):
        prepare(_variant(config, tmp_path, block_weights={"attic": 1.0}), device)
    with pytest.raises(CacheError):
        prepare(variant.model_copy(update={"run_dir": tmp_path / "nowhere"}), device)


def test_text_states_can_be_distilled(config: Config, tmp_path: Path) -> None:
    variant = _variant(config, tmp_path, steps=40, text_weight=1.0, noise_pred_weight=0.0, feature_weight=0.0)
    train_adapter.run(variant, QUIET)
    text = [row["text"] for row in _rows(variant)]
    assert sum(text[-5:]) < 0.8 * sum(text[:5])


def test_training_can_read_another_language_than_the_prompts(config: Config, tmp_path: Path) -> None:
    plain = _variant(config, tmp_path, culture_fraction=0.0)
    english = plain.model_copy(update={"student": plain.student.model_copy(update={"training_language": "en"})})
    native, other = (prepare(each, torch.device("cpu")) for each in (plain, english))
    batch, same_rows = other.data.batch(0), native.data.batch(0)
    assert batch.names == same_rows.names
    assert batch.native_captions != same_rows.native_captions
    assert batch.native_captions == batch.english_captions == same_rows.english_captions
    assert other.native_states(batch.native_captions)[0] is not None
    assert other.fingerprint["student"] != native.fingerprint["student"]


def test_steps_in_text_space_come_first_and_ask_no_unet(config: Config, tmp_path: Path) -> None:
    variant = _variant(config, tmp_path, steps=6, text_steps=4)
    train_adapter.run(variant, QUIET)
    rows = _rows(variant)
    assert [row["noise_pred"] > 0 for row in rows] == [False] * 4 + [True] * 2
    assert [row["lr"] for row in rows] == pytest.approx([5e-3, 1e-2, 1e-2, 1e-2, 5e-3, 1e-2]), "two warmups"
    assert [row["loss"] == row["text"] for row in rows] == [True] * 4 + [False] * 2


def test_blocks_without_weight_are_not_read(config: Config, tmp_path: Path) -> None:
    weights = dict.fromkeys(("down_blocks.0", "down_blocks.1", "up_blocks.0", "up_blocks.1"), 0.0)
    setup = prepare(_variant(config, tmp_path, block_weights=weights), torch.device("cpu"))
    assert set(setup.data.batch(0).features) == {"mid_block"}
    setup = prepare(_variant(config, tmp_path, feature_weight=0.0), torch.device("cpu"))
    assert setup.data.batch(0).features == {}


@pytest.mark.parametrize(
    "options", [{"gradient_checkpointing": True}, {"min_snr_gamma": 5.0}, {"diffusion_rows": "all"}]
)
def test_options_change_what_they_should(config: Config, tmp_path: Path, options: dict[str, Any]) -> None:
    """Recomputed activations change nothing; the others change the loss."""
    plain, other = _variant(config, tmp_path / "plain"), _variant(config, tmp_path / "other", **options)
    train_adapter.run(plain, QUIET)
    train_adapter.run(other, QUIET)
    losses = [[row["loss"] for row in _rows(variant)] for variant in (plain, other)]
    if "gradient_checkpointing" in options:
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    else:
        assert all(a != pytest.approx(b, rel=1e-4) for a, b in zip(*losses, strict=True))


def test_bfloat16_is_near_float32(config: Config, tmp_path: Path) -> None:
    plain, half = _variant(config, tmp_path / "plain"), _variant(config, tmp_path / "half", precision="bf16")
    train_adapter.run(plain, QUIET)
    train_adapter.run(half, QUIET)
    losses = [[row["diffusion"] for row in _rows(variant)] for variant in (plain, half)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in _weights(half).values())


def test_a_full_disk_keeps_the_former_states(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = _variant(config, tmp_path)
    original = train_state.save_file

    def no_space(tensors: Any, path: Path) -> None:
        if "step-00000004" in str(path):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        original(tensors, path)

    monkeypatch.setattr(train_state, "save_file", no_space)
    with pytest.raises(DiskFullError, match="cannot save the training state"):
        train_adapter.run(variant, QUIET)
    assert [path.name for path in (variant.adapter_dir / "states").iterdir()] == ["step-00000002"]
    monkeypatch.undo()
    assert train_adapter.run(variant, QUIET)["steps"] == 4


@pytest.mark.slow
def test_two_processes_train_like_one_with_twice_the_batches(config: Config, tmp_path: Path) -> None:
    """The same batches in the same order, half of them in each process."""
    one = _variant(config, tmp_path / "one", steps=6, gradient_accumulation_steps=2, max_grad_norm=1e9)
    two = _variant(config, tmp_path / "two", steps=6, max_grad_norm=1e9)
    train_adapter.run(one, QUIET)
    path = tmp_path / "two.yaml"
    path.write_text(resolved_yaml(two), encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "stages.train_adapter", "--config", str(path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    assert [row["loss"] for row in _rows(two)] == pytest.approx([row["loss"] for row in _rows(one)], rel=1e-4)
    for name, tensor in _weights(one).items():
        torch.testing.assert_close(_weights(two)[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_adapter(config: Config, tmp_path: Path) -> None:
    """SIGKILL at arbitrary moments, then the same command again."""
    options = {"steps": 40, "save_every_steps": 3}
    whole = _variant(config, tmp_path / "whole", **options)
    train_adapter.run(whole, QUIET)
    killed = _variant(config, tmp_path / "killed", **options)
    path = tmp_path / "killed.yaml"
    path.write_text(resolved_yaml(killed), encoding="utf-8")
    command = [sys.executable, "-m", "stages.train_adapter", "--config", str(path)]
    log = killed.adapter_dir / "train_log.jsonl"
    kills = 0
    for patience in (0.0, 0.3, 0.7, 0.45):
        before = len(log.read_text().splitlines()) if log.exists() else 0
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and (not log.exists() or len(log.read_text().splitlines()) <= before):
                time.sleep(0.01)
            time.sleep(patience)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
    assert kills > 0
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert _same(_weights(whole), _weights(killed))
    assert [row["loss"] for row in _rows(whole)] == [row["loss"] for row in _rows(killed)]
