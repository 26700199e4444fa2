"""What several commands are tested on: a trained adapter, with prompts to draw."""

from __future__ import annotations

import pytest

from pea.config import Config, EvaluateConfig
from stages import train_adapter
from stages.command.console import Console
from tests.prompt_files import write_prompts
from tests.tiny_setup import make_setup


@pytest.fixture(scope="session")
def evaluated_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A tiny SDXL setup with a trained adapter, five general prompts, three of a culture, and a judge to be played."""
    folder = tmp_path_factory.mktemp("evaluate")
    base = make_setup(folder, "sdxl")
    train_adapter.run(base, Console(quiet=True))
    write_prompts(folder / "general.jsonl", 5, translation=False)
    write_prompts(folder / "culture.jsonl", 3, translation=True)
    settings = EvaluateConfig(
        prompts={"general": folder / "general.jsonl", "culture": folder / "culture.jsonl"},
        judge=folder / "judge",
        num_inference_steps=2,
        batch_size=4,
        device="cpu",
    )
    return base.model_copy(update={"evaluate": settings})
