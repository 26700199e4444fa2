"""What decides the result of a phase; a saved state of another fingerprint is not resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pea.cache import Cache
from pea.cache.identity import sha256_folder
from pea.cache.totals import totals
from pea.config import Config, Phase, TrainConfig
from pea.models.native import native_digest
from pea.storage.digests import canonical_json, sha256_text
from pea.training.saved_state import differing_names
from stages.training.warm_start import warm_start_record

_NOT_DECIDING = {
    "save_every_steps", "keep_states", "log_every_steps", "num_workers", "device", "resume", "max_skipped_steps",
    "max_minutes", "keep_text_states", "min_captioned_fraction",
    "sample_every_steps", "sample_prompts", "trackers", "phases", "local_copy_bytes",
    "text_error",
    "init", "init_from",
}  # fmt: skip
"""Settings of `train` that do not change the result, or are in the fingerprint otherwise."""
_LIGHT = {
    "steps", "batch_size", "learning_rate", "schedule", "warmup_steps", "weight_decay", "adam_beta2", "max_grad_norm",
    "seed", "precision", "validation_fraction", "min_description_gain",
}  # fmt: skip
"""Settings that decide the result of a phase without the UNet."""
_FOLDER = "encoder_folder"
"""Digest of all files of the encoder's folder, which was all that older states knew of it."""
_FORMER = {"diffusion_error": "prediction", "text_error": "square"}
"""What older states have that lack a setting, where it is not the default of today."""
_OF_KIND = {"text": {"text_error"}, "attention": {"text_weight", "attention_layer_weights", "timesteps"}}


def fingerprint_without_unet(
    config: Config, parallel: Cache, phases: Sequence[Phase], num_processes: int
) -> dict[str, Any]:
    """Of the last of these phases, none of which has the UNet: what comes after it leaves its result as it is."""
    return {
        "cache": parallel.identity.digest,
        "student": _student(config),
        "phases": [settings_without_unet(phase) for phase in phases],
        "num_processes": num_processes,
        **_start(config),
        **_taken_down(parallel),
        **_left_out(config, parallel),
        **_beside(parallel),
    }


def fingerprint_with_unet(
    config: Config, parallel: Cache, culture: Cache | None, former: Sequence[Phase], num_processes: int
) -> dict[str, Any]:
    """Of the phase with the UNet; `config`: with its settings, `former`: the phases before it."""
    found = {
        "cache": {"parallel": parallel.identity.digest, "culture": culture.identity.digest if culture else None},
        "student": _student(config),
        "train": _plain(config.train, set(TrainConfig.model_fields) - _NOT_DECIDING),
        "num_processes": num_processes,
        **_start(config),
        **_taken_down(parallel, *([culture] if culture else [])),
        **_left_out(config, parallel, *([culture] if culture else [])),
        **_beside(parallel, *([culture] if culture else [])),
    }
    return found | ({"phases": [settings_without_unet(phase) for phase in former]} if former else {})


def _start(config: Config) -> dict[str, str]:
    """The adapter that the run starts from, by content; nothing where there is none, as in older states."""
    return {name: each["tensors"] for name, each in warm_start_record(config).items()}


def _taken_down(*caches: Cache) -> dict[str, str]:
    """Which samples are gone from caches that are otherwise the same; nothing where none is, as in older states."""
    names = sorted(name for cache in caches for name in cache.removed())
    return {"samples_taken_down": sha256_text(canonical_json(names))} if names else {}


def _left_out(config: Config, *caches: Cache) -> dict[str, Any]:
    """How many samples have a caption in each language, where some have none; older states know of no such caches."""
    languages = config.student.caption_languages
    found = [(sums["samples"], *(sums["languages"].get(name, 0) for name in languages)) for sums in map(totals, caches)]
    partly = any(0 < count < num_samples for num_samples, *counts in found for count in counts)
    return {"captions": [list(counts) for counts in found]} if partly else {}


def _beside(*caches: Cache) -> dict[str, Any]:
    """The captions that lie beside the caches; nothing where there are none, as in older states."""
    digests = [cache.caption_tables.digest() if cache.caption_tables else None for cache in caches]
    return {"caption_tables": digests} if any(digests) else {}


def differing_settings(saved: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Dotted names at which the fingerprint of a saved state differs; what is newer than it had its default then."""
    defaults = TrainConfig().model_dump(mode="json") | _FORMER
    saved, current = dict(saved), dict(current)
    saved["student"], current["student"] = _comparable_students(saved.get("student", {}), current.get("student", {}))

    def completed(settings: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
        return {name: defaults[name] for name in like if name in defaults} | settings

    if "train" in saved and "train" in current:
        saved["train"] = completed(saved["train"], current["train"])
    if "phases" in saved and len(saved["phases"]) == len(current.get("phases", ())):
        saved["phases"] = [completed(*both) for both in zip(saved["phases"], current["phases"], strict=True)]
    return differing_names(saved, current)


def settings_without_unet(phase: Phase) -> dict[str, Any]:
    """Settings that decide the result of a phase without the UNet."""
    return {"kind": phase.kind} | _plain(phase.train, _LIGHT | _OF_KIND[phase.kind])


def _student(config: Config) -> dict[str, Any]:
    student = config.student
    reading = {name: value for name, value in student.reading.items() if value is not None}
    return reading | {
        "encoder": "+".join(map(native_digest, student.encoders)),
        _FOLDER: "+".join(map(sha256_folder, student.encoders)),
        "language": ",".join(student.caption_languages),
        "adapter": student.adapter.model_dump(mode="json"),
    }


def _comparable_students(saved: dict[str, Any], current: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two students as far as they count: not by files that nobody reads; older states hold the folder's digest."""
    if _FOLDER not in saved and saved.get("encoder") == current.get(_FOLDER):
        saved = {**saved, "encoder": current.get("encoder")}
    plain = [{name: value for name, value in each.items() if name != _FOLDER} for each in (saved, current)]
    return plain[0], plain[1]


def _plain(train: TrainConfig, names: set[str]) -> dict[str, Any]:
    """These settings as a saved state gives them back."""
    settings: dict[str, Any] = json.loads(json.dumps(train.model_dump(mode="json", include=names)))
    return settings
