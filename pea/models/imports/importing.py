"""From a published model to a folder that `NativeEncoder.from_pretrained` loads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import save_file

from pea.errors import CheckpointError
from pea.file_names import MODEL_CONFIG
from pea.models.encoders.traits import READING
from pea.models.imports.layouts import Layout, layout_of
from pea.models.imports.published import read_published
from pea.models.imports.tokenizers import has_tokenizer, write_tokenizer
from pea.models.native import NativeEncoder
from pea.storage.durable import new_folder

_TRIED: Sequence[str] = ("a", "一只猫", "")


class Import(NamedTuple):
    """What was written."""

    layout: Layout
    encoder: NativeEncoder
    """Loaded from the folder as every command loads it."""


def import_encoder(source: Path, out: Path, tokenizer: Path | None = None) -> Import:
    """Write the text encoder of a published model as a transformers folder.

    Args:
        source: file of weights, or the folder of one.
        out: folder to write; nothing may be there yet.
        tokenizer: folder of the tokenizer, where it doesn't lie beside the weights.

    Raises:
        CheckpointError: the layout is unknown, something is missing, or what came out cannot be used.
    """
    if out.exists():
        raise CheckpointError("there is something here already", where=out, remedy="Choose another --out.")
    published = read_published(source)
    layout = layout_of(published)
    beside = published.weights.parent
    if tokenizer is None and not has_tokenizer(beside):
        raise CheckpointError(
            "no tokenizer lies beside the weights",
            where=beside,
            remedy="Give the folder of its tokenizer: --tokenizer FOLDER.",
        )
    try:
        tower = layout.text_tower(published)
    except CheckpointError as error:
        raise CheckpointError(f"cannot read this as {layout.name}", where=published.weights, got=error) from error
    with new_folder(out) as temporary:
        reading = {} if tower.max_tokens is None else {READING: {"max_tokens": tower.max_tokens}}
        config = tower.config | reading
        (temporary / MODEL_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        state = {name: tensor.detach().clone().contiguous() for name, tensor in tower.state.items()}
        save_file(state, temporary / "model.safetensors", metadata={"format": "pt"})
        write_tokenizer(tokenizer or beside, tower, temporary)
        _check(temporary, published.weights)
    return Import(layout, NativeEncoder.from_pretrained(out))


def _check(folder: Path, source: Path) -> None:
    """Load what was written and read something with it."""
    try:
        hidden, _ = NativeEncoder.from_pretrained(folder).encode(_TRIED)
    except CheckpointError as error:  # of a folder that is going to be gone, and with the advice to import it
        got = error.message.partition(" Published in another form")[0].removeprefix(f"{folder}").lstrip("/: ")
        raise CheckpointError("what comes out of these weights cannot be used", where=source, got=got) from error
    if not hidden.isfinite().all():
        raise CheckpointError("its hidden states are not finite", where=source)
