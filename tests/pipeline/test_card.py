"""The lines of Python on a card: what is in a bucket is named there, and loaded by what can read it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from pea.copies import note_copy
from pea.pipeline.card import CardFacts, pipeline_call, snippet

_ADAPTER = SimpleNamespace(pooled_dim=None, languages=["zh"])


def test_a_base_model_in_a_bucket_is_loaded_from_a_copy() -> None:
    assert pipeline_call("P", "org/name@v1") == 'P.from_pretrained("org/name", revision="v1")'
    assert pipeline_call("P", "org/name@main") == 'P.from_pretrained("org/name")'
    assert pipeline_call("P", "sd.safetensors") == 'P.from_single_file("sd.safetensors")'
    assert pipeline_call("P", "s3://b/models/sd") == 'P.from_pretrained("sd")  # a copy of s3://b/models/sd'


def test_a_copy_on_this_machine_is_on_no_card(tmp_path: Path) -> None:
    for name in ("sd", "run"):
        note_copy(tmp_path / name, f"s3://b/{name}")
    facts = CardFacts(place=str(tmp_path / "run/adapter"), base=str(tmp_path / "sd"), has_lora=True)
    lines = snippet(_ADAPTER, facts).splitlines()
    assert str(tmp_path) not in "".join(lines)
    assert 'pea = PEAPrompt.from_pretrained("s3://b/run/adapter")' in lines
    assert "pipe.load_lora_weights(pea.folder)" in lines, "diffusers reads no URL, and the adapter is here by then"
    for line in lines:
        compile(line, "snippet", "exec")
