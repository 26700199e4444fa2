"""`train.init_from`: a run that starts from an adapter instead of initial weights."""

from __future__ import annotations

from typing import Any

from pea.config import Config
from pea.errors import CheckpointError
from pea.evaluation.base_model import check_base_model
from pea.file_names import LORA_FILE
from pea.models.adapter import PEA
from pea.models.encoders.pair import load_encoder
from pea.models.encoders.text_encoder import TextEncoder
from pea.models.native import check_encoder
from pea.models.tensor_files import digest_of
from pea.storage.hub import local_folder, model_name

_REMEDY = "Choose another train.init_from, or leave it out."


def check_warm_start(config: Config) -> None:
    """Refuse, before anything is spent, an adapter that the run cannot start from; the encoder is loaded for it.

    Raises:
        CheckpointError: it is missing, or was made for another encoder, another kind of base model, or in other sizes.
    """
    if config.train.init_from is not None:
        warm_start(config, load_encoder(config.student.encoders, reading=config.student.reading))


def warm_start(config: Config, encoder: TextEncoder) -> PEA:
    """The adapter of `train.init_from`, on the CPU. Warns where its base model had other weights than the teacher.

    Raises:
        CheckpointError: as `check_warm_start`.
    """
    assert config.train.init_from is not None
    folder = local_folder(config.train.init_from)
    adapter = PEA.load(folder)
    if (folder / LORA_FILE).exists():
        raise CheckpointError(
            "this adapter goes with a UNet that was trained as well, which a run cannot start from",
            where=folder,
            got=LORA_FILE,
            remedy=_REMEDY,
        )
    wanted = {
        "input_dim": encoder.width,
        "hidden_size": config.student.adapter.hidden_size,
        "num_layers": config.student.adapter.num_layers,
    }
    differing = {name: value for name, value in wanted.items() if adapter.config[name] != value}
    if differing:
        raise CheckpointError(
            "the adapter to start from has other sizes than this run's",
            where=folder,
            expected=", ".join(f"{name} {value}" for name, value in differing.items()),
            got=", ".join(f"{name} {adapter.config[name]}" for name in differing),
            remedy="Set student.adapter and student.encoder as they were for it, or choose another train.init_from.",
        )
    if adapter.config.pooling != "all_tokens":
        raise CheckpointError("adapters of this pooling are not trained", where=folder, got=adapter.config.pooling)
    check_encoder(adapter.config.encoder, encoder)
    check_base_model(adapter, config.teacher.folder)
    return adapter


def warm_start_record(config: Config) -> dict[str, Any]:
    """What a fingerprint and a summary say of the start: the adapter's name and tensors; nothing without one.

    Raises:
        CheckpointError: it is missing.
    """
    if config.train.init_from is None:
        return {}
    name = model_name(config.train.init_from)
    return {"init_from": {"name": name, "tensors": digest_of(local_folder(config.train.init_from))}}
