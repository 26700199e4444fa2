"""Which values the fields of a model's configuration can have, where we read them; a file may say anything."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pea.errors import CheckpointError

_MOST = 1_000_000
_MOST_LAYERS = 1000
_MOST_SIDE = 4096
"""Of latents: eight times as many pixels."""


class Kind(NamedTuple):
    """Values that a field can have."""

    expected: str
    """In words."""
    holds: Callable[[Any], bool]


def _is_count(value: Any, most: int = _MOST) -> bool:
    return type(value) is int and 0 < value <= most


def _is_side(value: Any) -> bool:
    return _is_count(value, _MOST_SIDE)


def _is_list(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(holds, value))


COUNT = Kind(f"a whole number from 1 to {_MOST:,}", _is_count)
COUNT_OR_NONE = Kind(f"a whole number from 1 to {_MOST:,}, or null", lambda value: value is None or _is_count(value))
LAYERS = Kind(f"a whole number from 1 to {_MOST_LAYERS:,}", lambda value: _is_count(value, _MOST_LAYERS))
COUNTS = Kind(f"a list of whole numbers from 1 to {_MOST:,}", lambda value: _is_list(value, _is_count))
LAYERS_EACH = Kind(
    f"a whole number from 1 to {_MOST_LAYERS:,}, or a list of such",
    lambda value: LAYERS.holds(value) or _is_list(value, LAYERS.holds),
)
NAMES = Kind("a list of names", lambda value: _is_list(value, lambda each: isinstance(each, str)))
SIZE = Kind(
    f"a whole number up to {_MOST_SIDE:,}, height and width, or null",
    lambda value: value is None or _is_side(value) or (_is_list(value, _is_side) and len(value) == 2),
)
FACTOR = Kind(
    "a number above 0",
    lambda value: isinstance(value, int | float) and type(value) is not bool and math.isfinite(value) and value > 0,
)
UNET = {
    "in_channels": COUNT,
    "out_channels": COUNT,
    "cross_attention_dim": COUNT,
    "block_out_channels": COUNTS,
    "layers_per_block": LAYERS_EACH,
    "down_block_types": NAMES,
    "up_block_types": NAMES,
    "sample_size": SIZE,
    "addition_time_embed_dim": COUNT_OR_NONE,
    "projection_class_embeddings_input_dim": COUNT_OR_NONE,
}
VAE = {
    "latent_channels": COUNT,
    "block_out_channels": COUNTS,
    "layers_per_block": LAYERS,
    "scaling_factor": FACTOR,
}
TEXT = {
    "hidden_size": COUNT,
    "intermediate_size": COUNT,
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": COUNT,
    "vocab_size": COUNT,
    "projection_dim": COUNT,
}

TRUTH = Kind("true or false", lambda value: isinstance(value, bool))
READING = {
    "max_tokens": Kind("a whole number", lambda value: type(value) is int),
    "hidden_state": Kind("last, or a whole number", lambda value: value == "last" or type(value) is int),
    "attention_mask": TRUTH,
    "padding_side": Kind("right or left", lambda value: value in ("right", "left")),
}
"""How a text encoder is read, where a file says so."""


def one_or_two(kind: Kind) -> Kind:
    """What an adapter records of its encoder, or in a list of each of two."""
    return Kind(
        f"{kind.expected}, or a list of two such",
        lambda value: (
            kind.holds(value) or (isinstance(value, list | tuple) and len(value) == 2 and all(map(kind.holds, value)))
        ),
    )


_DIGEST = Kind("a sha256", lambda value: isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None)
_NAME = Kind("a name", lambda value: isinstance(value, str) and bool(value) and value.isprintable())


def _is_place(value: Any) -> bool:
    """What names the same folder, URL, or model of the hub, from any working directory."""
    return isinstance(value, str) and (value.startswith("/") or "://" in value or "@" in value)


def _is_code(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w{1,35}(-\w{1,35})*", value) is not None


COMPUTED_WITH = "computed_with"
"""Key in an adapter's record of its encoder: fields of that one's configuration; not in older ones."""
ENCODER = {
    "name": _NAME,
    "class": one_or_two(_NAME),
    "tensors": one_or_two(_DIGEST),
    "tokenizer": one_or_two(_DIGEST),
    COMPUTED_WITH: one_or_two(Kind("an object", lambda value: isinstance(value, Mapping))),
    "places": Kind("a list of whole paths or URLs, or null", lambda value: value is None or _is_list(value, _is_place)),
} | {name: one_or_two(kind) for name, kind in READING.items()}
"""An adapter's record of its text encoder; `NEEDED` of it are never absent."""
NEEDED = ("name", "tensors", "tokenizer")

RECORD = Kind("an object, or null", lambda value: value is None or isinstance(value, Mapping))
WORD = Kind("a word, or null", lambda value: value is None or isinstance(value, str))
BASE = {"name": WORD, "unet": WORD, "values": RECORD}
"""An adapter's record of the diffusion model that it is for."""
ADAPTER = {
    "input_dim": COUNT,
    "cross_attention_dim": COUNT,
    "pooled_dim": COUNT_OR_NONE,
    "hidden_size": COUNT,
    "num_layers": Kind(f"a whole number from 0 to {_MOST_LAYERS:,}", lambda value: value == 0 or LAYERS.holds(value)),
    "pooling": Kind("all_tokens or unmasked_tokens", lambda value: value in ("all_tokens", "unmasked_tokens")),
    "max_tokens": COUNT_OR_NONE,
    "encoder": RECORD,
    "base_model": RECORD,
    "start": RECORD,
    "prediction_type": WORD,
    "weights": WORD,
    "cache_identity": WORD,
    "languages": Kind("a list of codes such as zh, or null", lambda value: value is None or _is_list(value, _is_code)),
}


def check_fields(config: Mapping[str, Any], kinds: Mapping[str, Kind], where: object) -> None:
    """Refuse a configuration with a value that a field cannot have; one that is absent has the class's default.

    Raises:
        CheckpointError: names the field.
    """
    for name, value in config.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise CheckpointError(f"config.json says an unusable {name}", where=where, expected="a number", got=value)
    for name, kind in kinds.items():
        if name in config and not kind.holds(config[name]):
            got = f"{config[name]!r}"[:60]
            raise CheckpointError(f"config.json says an unusable {name}", where=where, expected=kind.expected, got=got)
