"""Models of the Hugging Face hub, named `org/name@revision`: downloaded once, found again without the network.

The endpoint, the cache, tokens and `HF_HUB_OFFLINE` are huggingface_hub's own.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pea.errors import CheckpointError
from pea.file_names import LORA_FILE
from pea.storage.location import Location
from pea.storage.work import fetched

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*@(?!.*\.\.)[\w.-][\w./-]*")
_CHECK = "Check its name, revision and the network; HF_HUB_OFFLINE=1 uses what was downloaded before."
_BARE_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CACHED = re.compile(r"models--(.+)")
_PLAIN = ("*.json", "*.txt", "*.model")
_WEIGHTS = (
    "model*.safetensors",
    "*/model*.safetensors",
    "diffusion_pytorch_model*.safetensors",
    "*/diffusion_pytorch_model*.safetensors",
    LORA_FILE,
)
_NEVER = ("*.py", "*.h5", "*.onnx", "*.onnx_data", "*.pb", "*.non_ema.*", "safety_checker/*")
"""Files that nobody here reads, code above all."""


def is_hub_id(place: str | Path | Location) -> bool:
    """Whether this names a model of the hub. A revision is asked for: what a name stands for changes."""
    return _ID.fullmatch(str(place)) is not None and not Path(place).exists()


def with_revision(place: str | Path, revision: str | None = None) -> str | Path:
    """`org/name` with its revision, by default the newest (`main`); what is a folder, or no such name, as it is.

    Raises:
        CheckpointError: a revision is given for a folder, or twice.
    """
    if not isinstance(place, str | Path):
        raise CheckpointError("neither a folder nor a name", expected="a path, or org/name of the hub", got=repr(place))
    if revision is None and is_hub_id(place):
        return place
    if _BARE_ID.fullmatch(str(place)) and not Path(place).exists():
        return f"{place}@{revision or 'main'}"
    if revision is not None:
        raise CheckpointError(
            "a revision is for org/name of the hub that is not given with one", where=place, got=revision
        )
    return place


def local_folder(place: str | Path | Location, *, every_form: bool = False, weights: bool = True) -> Path:
    """The folder (or file) of this machine that `place` is, or that holds the files of a model of the hub or of a URL.

    `every_form`: weights in whatever form (`.bin`, flax), where safetensors alone are fetched otherwise; no `weights`:
    of a model of the hub, configurations and tokenizers alone.

    Raises:
        CheckpointError: the hub has no such model or revision, or cannot be reached and the cache has it not.
        StorageError: the store of a URL cannot be read, or there is no room for a copy.
    """
    if isinstance(place, str) and "://" in place:
        place = Location.parse(place)
    if isinstance(place, Location):
        return fetched(place)
    if not is_hub_id(place):
        return Path(place)
    return _snapshot(str(place), None if every_form else (*_PLAIN, *(_WEIGHTS if weights else ())))


def model_name(folder: Path | Location) -> str:
    """What a model is called: `org/name@revision` of one from the hub, or the folder's own name."""
    if is_hub_id(folder):
        return str(folder)
    place = folder.resolve()
    cached = _CACHED.fullmatch(place.parent.parent.name) if place.parent.name == "snapshots" else None
    return f"{cached[1].replace('--', '/')}@{place.name}" if cached else place.name


@lru_cache(maxsize=64)
def _snapshot(place: str, patterns: tuple[str, ...] | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    name, revision = place.split("@", 1)
    disable_progress_bars()
    try:
        fetch = partial(
            snapshot_download, name, revision=revision, allow_patterns=None if patterns is None else list(patterns)
        )
        try:
            listed = HfApi().model_info(name, revision=revision).siblings or ()
        except Exception:  # the cache decides without the network; where it has nothing, the first error is told
            for variants in (["*.fp16.*"], []):
                with suppress(Exception):
                    return Path(fetch(ignore_patterns=[*_NEVER, *variants], local_files_only=True))
            raise
        never = [*_NEVER, *_variants_beside([each.rfilename for each in listed])]
        return Path(fetch(ignore_patterns=never))
    except Exception as error:  # of the hub's, the network's and the disk's many kinds
        raise CheckpointError(
            "cannot get this model from the hub", where=place, got=_first_lines(error), remedy=_CHECK
        ) from error


def _variants_beside(files: list[str]) -> list[str]:
    """The fp16 files that have plain ones beside them: these are what is loaded."""
    plain = {str(Path(file).parent) for file in files if file.endswith(".safetensors") and ".fp16." not in file}
    return [file for file in files if ".fp16." in file and str(Path(file).parent) in plain]


def hub_file(place: str, file: str) -> dict[str, Any]:
    """One JSON file of a model of the hub; the rest of it is not fetched.

    Raises:
        CheckpointError: there is none, or the hub cannot be reached and the cache has it not.
    """
    from huggingface_hub import hf_hub_download

    name, revision = place.split("@", 1)
    try:
        content: dict[str, Any] = json.loads(Path(hf_hub_download(name, file, revision=revision)).read_text("utf-8"))
    except Exception as error:  # of the hub's, the network's and the disk's many kinds
        raise CheckpointError(
            f"cannot get {file} from the hub", where=place, got=_first_lines(error), remedy=_CHECK
        ) from error
    return content


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]).rstrip(".")
