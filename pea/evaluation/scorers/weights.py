"""A scorer's weights: every tensor of the architecture from the file, and nothing in the file that nobody knows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from pea.errors import CheckpointError
from pea.models.loaded_tensors import check_numbers

_SHOWN = 3
Model = TypeVar("Model", bound=nn.Module)


def filled(
    make: Callable[[], Model], state: Mapping[str, Tensor], where: Path, left_out: re.Pattern[str] | None = None
) -> Model:
    """The model that `make` makes, with these tensors in float32; `left_out`: names that a file may hold beside them.

    Raises:
        CheckpointError: tensors are missing, unknown, or of another shape.
    """
    with torch.device("meta"):  # initial weights of a billion parameters take long, and nobody wants them
        model = make()
    wanted = model.state_dict()
    problems = {
        "missing": [name for name in wanted if name not in state],
        "of another shape": [name for name in wanted if name in state and state[name].shape != wanted[name].shape],
        "unknown": [name for name in state if name not in wanted and not (left_out and left_out.search(name))],
    }
    got = [f"{len(names)} {what} ({_some(names)})" for what, names in problems.items() if names]
    if got:
        raise CheckpointError(
            f"the weights are not those of {type(model).__name__.strip('_')}",
            where=where,
            expected="every tensor by its name",
            got=", ".join(got),
            remedy="Give the file as it was published.",
        )
    for name, each in wanted.items():
        check_numbers(name, state[name], each, where)
    model.load_state_dict({name: state[name].float() for name in wanted}, assign=True)
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta:  # not in any file: transformers counts positions
                assert name == "position_ids", name
                module.register_buffer(name, torch.arange(buffer.shape[-1]).expand((1, -1)), persistent=False)
    return model


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
