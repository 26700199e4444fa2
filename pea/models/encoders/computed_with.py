"""What of an encoder's configuration decides its states, beside its tensors and how it is read.

The same tensors give other states with another activation, as CLIPs with `gelu` in place of `quick_gelu` do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_FIELDS = (
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "feed_forward_proj",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "rms_norm_eps",
    "num_attention_heads",
    "num_heads",
    "num_key_value_heads",
    "head_dim",
    "position_embedding_type",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "query_pre_attn_scalar",
    "sliding_window",
)
"""By the names that transformers' text models have; the many others decide shapes, training, or what writes texts."""
_ROPE = ("rope_theta", "rope_type", "factor")


def computed_with(config: Any) -> dict[str, Any]:
    """The fields that a text model's configuration has of these, with their values."""
    found = {name: getattr(config, name, None) for name in _FIELDS}
    rope = getattr(config, "rope_parameters", None)
    if isinstance(rope, Mapping):
        found |= {name: rope.get(name) for name in _ROPE}
    return {name: value for name, value in found.items() if isinstance(value, str | int | float)}


def differing_fields(recorded: Any, found: Any) -> list[str]:
    """Names of the fields that differ, of one encoder or of two in a list; what one of both does not say is no matter.

    Versions of the library may know more fields, or fewer.
    """
    pairs = zip(*(each if isinstance(each, list | tuple) else [each] for each in (recorded, found)), strict=False)
    return sorted(
        {
            name
            for one, other in pairs
            for name in one.keys() & other.keys()
            if json.dumps(one[name]) != json.dumps(other[name])
        }
    )
