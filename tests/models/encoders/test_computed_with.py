"""Which fields of a configuration decide an encoder's states, and how two records of them are compared."""

from __future__ import annotations

from transformers import BertConfig, CLIPTextConfig, Qwen3Config, T5Config

from pea.models.encoders.computed_with import computed_with, differing_fields


def test_what_decides_states_is_kept_and_what_decides_training_is_not() -> None:
    plain = computed_with(CLIPTextConfig())
    assert plain == computed_with(CLIPTextConfig(initializer_range=0.5, attention_dropout=0.3, vocab_size=7))
    assert differing_fields(plain, computed_with(CLIPTextConfig(hidden_act="gelu"))) == ["hidden_act"]
    assert differing_fields(computed_with(BertConfig()), computed_with(BertConfig(num_attention_heads=6))) == [
        "num_attention_heads"
    ]
    gated = computed_with(T5Config(feed_forward_proj="gated-gelu"))
    assert differing_fields(computed_with(T5Config()), gated) == ["feed_forward_proj"]
    rope = {"rope_theta": 1e6, "rope_type": "default"}
    assert differing_fields(computed_with(Qwen3Config()), computed_with(Qwen3Config(rope_parameters=rope))) == [
        "rope_theta"
    ]


def test_what_one_does_not_say_is_no_matter_and_two_are_compared_in_order() -> None:
    one, other = {"hidden_act": "gelu", "num_heads": 2}, {"hidden_act": "relu", "head_dim": 8}
    assert differing_fields(one, {"num_heads": 2, "layer_norm_eps": 1e-5}) == []
    assert differing_fields({}, one) == [] and differing_fields([one, other], [one, other]) == []
    assert differing_fields([one, other], [one, one]) == ["hidden_act"]
