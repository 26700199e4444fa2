"""The training loop: equal to the original, resumable at any moment, honest about what goes wrong."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from pea.config import Config, resolved_yaml
from pea.errors import CacheError, ConfigError, DiskFullError, IdentityError, LeaseHeldError, TrainingError
from pea.models.adapter import PEA
from pea.pipeline import PEAPrompt
from pea.storage import Location
from pea.storage.durable import temporary_sibling
from pea.storage.leases import take
from pea.training import saved_state
from stages import train_adapter
from stages.command.console import Console
from stages.training import losses as train_losses
from stages.training.setup import prepare
from tests.pipeline.test_publishing import run_snippet
from tests.train_runs import log_rows, same, variant, weights

QUIET = Console(quiet=True)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tiny_sdxl: Config) -> Config:
    return tiny_sdxl


@pytest.fixture(scope="module")
def trained(tiny_sdxl: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, dict[str, Any]]:
    """A training with the plain settings, and its summary. Not to be changed; see ``copy_of``."""
    run = variant(tiny_sdxl, tmp_path_factory.mktemp("trained"))
    return run, train_adapter.run(run, QUIET)


def copy_of(run: Config, folder: Path, **train: Any) -> Config:
    """The same in a folder of its own, with what it has left."""
    copied = variant(run, folder, **train)
    shutil.copytree(run.run_dir, copied.run_dir)
    return copied


@pytest.mark.slow
def test_cached_training_follows_live_training(config: Config, tmp_path: Path) -> None:
    """The same losses over 50 steps, and the same adapter."""
    results = {}
    for targets in ("cached", "live"):
        run = variant(config, tmp_path / targets, steps=50, targets=targets, log_every_steps=1, save_every_steps=50)
        train_adapter.run(run, QUIET)
        results[targets] = ([row["loss"] for row in log_rows(run)], weights(run))
    assert results["cached"][0] == pytest.approx(results["live"][0], rel=1e-5)
    for name, tensor in results["live"][1].items():
        torch.testing.assert_close(results["cached"][1][name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"init": "torch", "feature_scale": "raw", "diffusion_error": "prediction"}, "train_losses"),
        ({}, "train_losses_recommended"),
    ],
)
def test_losses_of_20_steps_are_the_recorded_ones(
    config: Config, tmp_path: Path, settings: dict[str, Any], name: str
) -> None:
    """A refactoring must not change them. Where the method changes on purpose: PEA_RECORD_GOLDEN=1 records anew."""
    run = variant(config, tmp_path, steps=20, log_every_steps=1, save_every_steps=20, **settings)
    train_adapter.run(run, QUIET)
    losses = [row["loss"] for row in log_rows(run)]
    golden = Path(__file__).parent / "golden" / f"{name}.json"
    if os.environ.get("PEA_RECORD_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(json.dumps(losses, indent=1) + "\n")
    assert losses == pytest.approx(json.loads(golden.read_text()), rel=1e-4)


@pytest.mark.slow
def test_what_is_published(trained: tuple[Config, dict[str, Any]]) -> None:
    run, summary = trained
    assert summary["steps"] == 4 and summary["records"] == 48 and summary["skipped_steps"] == 0
    assert json.loads((run.training_dir / "train_summary.json").read_text()) == summary
    assert [row["step"] for row in log_rows(run)] == [1, 2, 3, 4]
    card = (run.adapter_dir / "README.md").read_text()
    digest = PEA.load(run.adapter_dir).config.cache_identity
    assert len(digest) == 64 and digest in card
    assert run_snippet(card).size == (16, 16), "the card's lines draw with the adapter's own folder and encoder"
    embeds = PEAPrompt.from_pretrained(run.adapter_dir)("一只猫")
    assert embeds["prompt_embeds"].shape == (1, 10, 32) and embeds["pooled_prompt_embeds"].shape == (1, 12)
    published = {"config.json", "diffusion_pytorch_model.safetensors", "README.md"}
    assert {path.name for path in run.adapter_dir.iterdir()} == published, "neither states nor logs"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"ema_decay": 0.5, "gradient_accumulation_steps": 2, "num_workers": 2},
    ],
)
def test_a_resumed_run_equals_an_unbroken_one(config: Config, tmp_path: Path, options: dict[str, Any]) -> None:
    whole = variant(config, tmp_path / "whole", steps=6, log_every_steps=2, **options)
    train_adapter.run(whole, QUIET)
    broken = copy_of(whole, tmp_path / "broken")
    for path in (broken.training_dir / "states").glob("step-00000006"):
        shutil.rmtree(path)
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        (broken.adapter_dir / name).unlink()
    train_adapter.run(broken, QUIET)
    assert same(weights(whole), weights(broken))
    without_time = [
        [{k: v for k, v in r.items() if "_s" not in k and k != "seconds"} for r in log_rows(c)] for c in (whole, broken)
    ]
    assert without_time[0] == without_time[1]


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(trained: tuple[Config, dict[str, Any]], tmp_path: Path) -> None:
    run, first = trained
    assert train_adapter.run(copy_of(run, tmp_path), QUIET)["seconds"] == first["seconds"]


@pytest.mark.slow
def test_another_run_is_not_taken_up(
    trained: tuple[Config, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = copy_of(trained[0], tmp_path, learning_rate=0.5)
    with pytest.raises(TrainingError, match=r"another run \(train\.learning_rate\)"):
        train_adapter.run(
            changed.model_copy(update={"train": changed.train.model_copy(update={"resume": "must"})}), QUIET
        )
    train_adapter.run(changed, Console())
    assert "training anew: the saved state is of another run (train.learning_rate)" in " ".join(
        capsys.readouterr().out.split()
    )
    assert len(log_rows(changed)) == 4


@pytest.mark.slow
def test_a_run_without_finite_losses_stops_and_names_records(config: Config, tmp_path: Path) -> None:
    run = variant(config, tmp_path, max_skipped_steps=2, block_weights={"mid_block": 1e38}, feature_weight=1e38)
    with pytest.raises(TrainingError, match=r"no finite loss in 2 consecutive steps.*records parallel-\d/\d{4}#\d"):
        train_adapter.run(run, QUIET)
    assert not (run.adapter_dir / "config.json").exists()


@pytest.mark.slow
def test_single_steps_without_finite_loss_are_skipped_and_counted(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = train_losses.student_losses, []

    def sometimes_nan(*args: Any, **kwargs: Any) -> Any:
        losses = original(*args, **kwargs)
        calls.append(losses)
        return (
            losses
            if len(calls) != 2
            else type(losses)(losses.total * float("nan"), losses.noise_pred, {}, losses.diffusion)
        )

    monkeypatch.setattr(train_losses, "student_losses", sometimes_nan)
    summary = train_adapter.run(variant(config, tmp_path), QUIET)
    assert summary["skipped_steps"] == 1 and summary["steps"] == 4


@pytest.mark.slow
def test_a_second_training_in_the_same_folder_is_refused(config: Config, tmp_path: Path) -> None:
    run = variant(config, tmp_path)
    run.adapter_dir.mkdir(parents=True)
    with take(Location.parse(run.adapter_dir) / "training", "a test"), pytest.raises(LeaseHeldError, match="a test"):
        train_adapter.run(run, QUIET)
    train_adapter.run(run, QUIET)
    assert not list(run.adapter_dir.glob("*.lease"))


def test_what_does_not_fit_is_refused(config: Config, tmp_path: Path) -> None:
    device = torch.device("cpu")
    run = variant(config, tmp_path)
    other_seed = run.model_copy(update={"cache": run.cache.model_copy(update={"seed": 5})})
    with pytest.raises(IdentityError, match=r"cache\.seed: the cache has 0, wanted 5"):
        prepare(other_seed, device)
    japanese = run.model_copy(update={"student": run.student.model_copy(update={"language": "ja"})})
    with pytest.raises(CacheError, match=r"no rows are left.*languages=\('ja',\)"):
        prepare(japanese, device)
    with pytest.raises(ConfigError, match=r"train\.block_weights.*got attic"):
        prepare(variant(config, tmp_path, block_weights={"attic": 1.0}), device)
    with pytest.raises(CacheError):
        prepare(run.model_copy(update={"cache_root": tmp_path / "nowhere"}), device)


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor computes with all numbers")
def test_a_run_computes_with_no_denormal_number(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which take many times as long on some processors."""
    products = []

    def losses(*arguments: Any, **options: Any) -> Any:
        products.append(float(torch.tensor([1e-20]) * 1e-19))
        return student_losses(*arguments, **options)

    student_losses = train_losses.student_losses
    monkeypatch.setattr(train_losses, "student_losses", losses)
    train_adapter.run(variant(config, tmp_path, steps=1), QUIET)
    assert products and not any(products)


@pytest.mark.slow
def test_text_states_can_be_distilled(config: Config, tmp_path: Path) -> None:
    run = variant(config, tmp_path, steps=40, text_weight=1.0, noise_pred_weight=0.0, feature_weight=0.0)
    train_adapter.run(run, QUIET)
    text = [row["text"] for row in log_rows(run)]
    assert sum(text[-5:]) < 0.8 * sum(text[:5])


@pytest.mark.slow
def test_training_can_read_another_language_than_the_prompts(config: Config, tmp_path: Path) -> None:
    plain = variant(config, tmp_path, culture_fraction=0.0)
    english = plain.model_copy(update={"student": plain.student.model_copy(update={"training_language": "en"})})
    native, other = (prepare(each, torch.device("cpu")) for each in (plain, english))
    batch, same_rows = other.data.batch(0), native.data.batch(0)
    assert batch.names == same_rows.names
    assert batch.native_captions != same_rows.native_captions
    assert batch.native_captions == batch.english_captions == same_rows.english_captions
    assert other.native_states(batch.native_captions)[0] is not None
    assert other.fingerprint["student"] != native.fingerprint["student"]


@pytest.mark.slow
def test_blocks_without_weight_are_not_read(config: Config, tmp_path: Path) -> None:
    factors = dict.fromkeys(("down_blocks.0", "down_blocks.1", "up_blocks.0", "up_blocks.1"), 0.0)
    setup = prepare(variant(config, tmp_path, block_weights=factors), torch.device("cpu"))
    assert set(setup.data.batch(0).features) == {"mid_block"}
    setup = prepare(variant(config, tmp_path, feature_weight=0.0), torch.device("cpu"))
    assert setup.data.batch(0).features == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"gradient_checkpointing": True}, {"min_snr_gamma": 5.0}, {"diffusion_rows": "all"}]
)
def test_options_change_what_they_should(
    trained: tuple[Config, dict[str, Any]], tmp_path: Path, options: dict[str, Any]
) -> None:
    """Recomputed activations change nothing; the others change the loss."""
    plain, other = trained[0], variant(trained[0], tmp_path, **options)
    train_adapter.run(other, QUIET)
    losses = [[row["loss"] for row in log_rows(run)] for run in (plain, other)]
    if "gradient_checkpointing" in options:
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    else:
        assert all(a != pytest.approx(b, rel=1e-4) for a, b in zip(*losses, strict=True))


@pytest.mark.slow
def test_bfloat16_is_near_float32(trained: tuple[Config, dict[str, Any]], tmp_path: Path) -> None:
    plain, half = trained[0], variant(trained[0], tmp_path, precision="bf16")
    train_adapter.run(half, QUIET)
    losses = [[row["diffusion"] for row in log_rows(run)] for run in (plain, half)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in weights(half).values())


@pytest.mark.slow
def test_a_full_disk_keeps_the_former_states(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = variant(config, tmp_path)
    original = saved_state.save_file

    def no_space(tensors: Any, path: Path) -> None:
        if "step-00000004" in str(path):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        original(tensors, path)

    monkeypatch.setattr(saved_state, "save_file", no_space)
    with pytest.raises(DiskFullError, match="cannot save the training state"):
        train_adapter.run(run, QUIET)
    assert [path.name for path in (run.training_dir / "states").iterdir()] == ["step-00000002"]
    monkeypatch.undo()
    assert train_adapter.run(run, QUIET)["steps"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adapter", "lora"])
def test_two_processes_train_like_one_with_twice_the_batches(config: Config, tmp_path: Path, method: str) -> None:
    """The same batches in the same order, half of them in each process."""
    config = variant(config, tmp_path, method=method, lora_rank=2)
    one = variant(config, tmp_path / "one", steps=6, gradient_accumulation_steps=2, max_grad_norm=1e9)
    two = variant(config, tmp_path / "two", steps=6, max_grad_norm=1e9)
    train_adapter.run(one, QUIET)
    path = tmp_path / "two.yaml"
    path.write_text(resolved_yaml(two), encoding="utf-8")
    # Several processes on CPUs alone are a matter of MPI to `--cpu`; `--multi_gpu` starts them whatever the device.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    options = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [*launch, *options, "-m", "stages.train_adapter", "--config", str(path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    assert [row["loss"] for row in log_rows(two)] == pytest.approx([row["loss"] for row in log_rows(one)], rel=1e-4)
    for name, tensor in weights(one).items():
        torch.testing.assert_close(weights(two)[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_adapter(config: Config, tmp_path: Path) -> None:
    """SIGKILL at arbitrary moments, then the same command again."""
    options = {"steps": 40, "save_every_steps": 3}
    whole = variant(config, tmp_path / "whole", **options)
    train_adapter.run(whole, QUIET)
    killed = variant(config, tmp_path / "killed", **options)
    path = tmp_path / "killed.yaml"
    path.write_text(resolved_yaml(killed), encoding="utf-8")
    command = [sys.executable, "-m", "stages.train_adapter", "--config", str(path)]
    log = killed.training_dir / "train_log.jsonl"
    kills = 0
    moments = random.Random(7)
    for patience in (moments.uniform(0.0, 0.8) for _ in range(4)):
        before = len(log.read_text().splitlines()) if log.exists() else 0
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and (not log.exists() or len(log.read_text().splitlines()) <= before):
                time.sleep(0.01)
            time.sleep(patience)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
    assert kills > 0
    left = [temporary_sibling(folder / "x.json") for folder in (killed.adapter_dir, killed.training_dir)]
    for path in left:
        path.touch()
        os.utime(path, (time.time() - 3600,) * 2)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert not any(path.exists() for path in left)
    assert same(weights(whole), weights(killed))
    assert [row["loss"] for row in log_rows(whole)] == [row["loss"] for row in log_rows(killed)]
