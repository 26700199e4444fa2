"""An adapter's folder as it is published: configuration, weights, model card; and its way to the hub.

What is published names nothing of the machine that it was made on: encoder and base model are models of the hub.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pea.errors import CheckpointError
from pea.evaluation.record import ScoreRecord, adapter_digest, is_of
from pea.file_names import ADAPTER_WEIGHTS, LORA_FILE, METRICS, MODEL_CONFIG
from pea.models.adapter import PEA
from pea.models.encoders.pair import load_encoder
from pea.models.encoders.places import without_places
from pea.models.encoders.traits import recorded_reading
from pea.models.lora_files import check_lora
from pea.models.native import check_encoder
from pea.pipeline.card import CardFacts, is_own, model_card, read_front_matter, read_scores, sections_made
from pea.pipeline.licences import check_languages, check_licence
from pea.storage.hub import hub_file, is_hub_id, local_folder, with_revision

CARD = "README.md"
PICTURE = "samples.png"
PUBLISHED = (MODEL_CONFIG, ADAPTER_WEIGHTS, LORA_FILE, CARD, PICTURE)
"""Nothing else of an adapter's folder is uploaded."""


def prepare(
    source: Path,
    out: Path,
    repo: str,
    *,
    encoders: Sequence[str] | None = None,
    base: str | None = None,
    licence: str | None = None,
    languages: Sequence[str] | None = None,
) -> list[Path]:
    """Write what is to be published of the adapter in `source` into `out`; returns the files.

    Args:
        source: an adapter's folder; scores and images of a run that it lies in go onto the card.
        out: an empty folder.
        repo: `org/name` that it is to have.
        encoders: `org/name[@revision]` of its text encoder (or two); compared by content. By default as recorded.
        base: the same of its diffusion model, compared by shape.
        licence: as the hub spells it; by default that of the card in `source`.
        languages: codes of its prompts' languages; by default as recorded.

    Raises:
        CheckpointError: something is missing, or is not what the adapter was trained with.
    """
    adapter = PEA.load(source)
    record = _encoder_record(adapter, encoders, source)
    base_model = _base_record(adapter, base, source)
    spoken = list(languages or adapter.config.languages or [])
    card = _card(source)
    kept, body = read_front_matter(card)
    said = {"license": licence, "base_model": base, "language": languages}
    licence = licence or kept.get("license")
    for value, name, option in ((licence, "licence", "--licence apache-2.0"), (spoken, "languages", "--language zh")):
        if not value:
            remedy = f"For example {option}."
            raise CheckpointError(f"nobody said the adapter's {name}, and the hub asks", where=source, remedy=remedy)
    licence = check_licence(licence, source)
    check_languages(spoken, source)
    if (source / LORA_FILE).is_file():
        check_lora(source / LORA_FILE)
    digest = adapter_digest(source)
    own = is_own(card, adapter.config.languages or [])
    adapter.register_to_config(encoder=record, base_model=base_model, languages=spoken)
    adapter.save_pretrained(out)
    has_lora = _copied(source / LORA_FILE, out / LORA_FILE)
    picture = any(_copied(each, out / PICTURE) for each in _pictures(source, digest)[:1])
    facts = CardFacts(
        place=repo,
        base=base_model["name"],
        licence=licence,
        has_lora=has_lora,
        scores=read_scores(source.parent, digest),
        picture=PICTURE if picture else None,
        made=sections_made(card),
    )
    text = model_card(adapter.config, facts)
    if card and not own:  # somebody's own words: what the hub reads is added where it is missing, or was said now
        head, _ = read_front_matter(text)
        own_words = {name: value for name, value in kept.items() if not said.get(name)}
        text = _with_front_matter(head | own_words, body)
    (out / CARD).write_text(text, "utf-8")
    return [out / name for name in PUBLISHED if (out / name).is_file()]


def write_folder(
    adapter: PEA, out: Path, source: Path | None, *, place: Path | None = None, base: str | None = None, made: str = ""
) -> None:
    """Write an adapter's folder for this machine: configuration, weights, card, and the UNet's changes.

    Args:
        adapter: what is written.
        out: the folder.
        source: folder that it was loaded from, whose changes of the UNet and whose card's last part stay.
        place: where `out` is going to be; by default there.
        base: folder or name of its diffusion model, for the card.
        made: Markdown for the card, where `source` has none.
    """
    adapter.save_pretrained(out)
    has_lora = source is not None and _copied(source / LORA_FILE, out / LORA_FILE)
    known = str((adapter.config.base_model or {}).get("name") or "the base model")
    card = "" if source is None else _card(source)
    facts = CardFacts(str(place or out), base or known, has_lora=has_lora, made=sections_made(card) or made)
    (out / CARD).write_text(model_card(adapter.config, facts), "utf-8")


def upload(folder: Path, repo: str, *, private: bool | None = None, message: str | None = None) -> str:
    """Publish the files of a folder as `org/name`, which is made where it is not there; returns its address.

    Raises:
        CheckpointError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        HfApi().create_repo(repo, private=private, exist_ok=True)
        done = HfApi().upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(PUBLISHED),
            commit_message=message or "Upload the adapter",
        )
    except Exception as error:  # of the hub's and the network's many kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise CheckpointError(
            "cannot publish on the hub",
            where=repo,
            got=" ".join(lines[:2]).rstrip("."),
            remedy="Check the name, the network, and that you are logged in: hf auth login.",
        ) from error
    return str(done.repo_url)


def _encoder_record(adapter: PEA, encoders: Sequence[str] | None, source: Path) -> dict[str, object]:
    """The record of the text encoder, named by the hub."""
    if encoders:
        places = [with_revision(each) for each in encoders]
        _need_hub(places, "text encoder", "--encoder", source)
        folders = [local_folder(place) for place in places]
        encoder = load_encoder(folders, reading=recorded_reading(adapter.config))
        check_encoder(adapter.config.encoder, encoder)
        return dict(encoder.record)
    record = without_places(adapter.config.encoder or {})
    _need_hub(str(record.get("name", "")).split(" + "), "text encoder", "--encoder", source)
    return record


def _base_record(adapter: PEA, base: str | None, source: Path) -> dict[str, Any]:
    recorded = dict(adapter.config.base_model or {})
    place = str(with_revision(base)) if base else str(recorded.get("name", ""))
    _need_hub([place], "diffusion model", "--base", source)
    if base:
        adapter.check_base(hub_file(place, "unet/config.json"), place)
    return {"unet": None} | recorded | {"name": place}


def _need_hub(places: Sequence[object], what: str, option: str, source: Path) -> None:
    unknown = [str(place) or "nothing" for place in places if not is_hub_id(str(place))]
    if unknown:
        raise CheckpointError(
            f"others cannot find the adapter's {what}",
            where=source,
            expected="org/name@revision of the hub",
            got=" and ".join(unknown),
            remedy=f"Name it with {option} org/name.",
        )


def _pictures(source: Path, digest: str) -> list[Path]:
    """Grids of images that an evaluation of this adapter, or the training, left beside it; `digest`: of its weights."""
    drawings = ScoreRecord(source.parent / METRICS).drawings
    grids = sorted((source.parent / "evaluate/adapter").glob("*/grid.png"))
    return [
        *sorted(source.glob(PICTURE)),
        *[grid for grid in grids if is_of(drawings.get(f"adapter/{grid.parent.name}", {}), digest)],
        *sorted((source.parent / "training/samples").glob("*.png"), reverse=True),
    ]


def _card(source: Path) -> str:
    """The card in an adapter's folder; empty where there is none."""
    card = source / CARD
    if not card.is_file():
        return ""
    _check_inside(card)
    try:
        return card.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError("not a text in UTF-8", where=card, got=error) from None


def _copied(source: Path, target: Path) -> bool:
    if source.is_file() and not target.exists():
        _check_inside(source)
        shutil.copyfile(source, target)
        return True
    return False


def _check_inside(file: Path) -> None:
    """Refuse a link that leads out of its folder, as somebody's adapter may have to a file of whoever publishes it.

    In the hub's cache, files are links to the model's own `blobs`.
    """
    folder, real = file.parent.resolve(), file.resolve()
    blobs = [folder.parent.parent / "blobs"] if folder.parent.name == "snapshots" else []
    if not any(real.is_relative_to(place) for place in (folder, *blobs)):
        raise CheckpointError(
            "a link out of the folder is not followed", where=file, got=real, remedy="Put the file itself there."
        )


def _with_front_matter(head: dict[str, object], body: str) -> str:
    import yaml

    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n{body}"
