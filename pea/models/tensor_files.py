"""The tensors in a model folder: in which file each is, and digests of their bytes. No heavy library is imported."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pea.errors import CheckpointError
from pea.foreign_json import POINTER, is_pointer, json_object
from pea.storage.digests import canonical_json, sha256_text

_STEMS = ("model", "diffusion_pytorch_model")
"""Of weight files: transformers', diffusers'."""
_OTHER_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".safetensors", ".gguf", ".msgpack", ".h5", ".onnx", ".incomplete")
_BLOCK_BYTES = 1 << 22
_MAX_HEADER_BYTES = 100_000_000  # what the safetensors format allows
_REMEDY = "Give a complete folder with safetensors weights."
PROJECTED = re.compile(
    r"(^|\.)(position_ids|token_type_ids|num_batches_tracked|[a-z_]*inv_freq)$"  # buffers that the library makes anew
    r"|(^|\.)(decoder|pooler|lm_head|embed_out|cls|classifier|qa_outputs|score)\."  # other halves, heads of other tasks
    r"|^(vision_model|visual|vision_tower|visual_projection)\.|^(logit_scale|logit_bias)$"
)
"""Tensors that a file may hold beside those of a text encoder with its projection, by name."""
LEFT_OUT = re.compile(PROJECTED.pattern + r"|^text_projection(\.|$)")
"""Tensors that a file may hold beside those of a text encoder, by name."""
_EXPONENTS = {
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F32": ("<u4", 0x7F80_0000),
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
}
"""Type -> whole numbers of its width, and the bits that are all set in infinity and in what is no number (IEEE 754)."""


class _Content(NamedTuple):
    """What reading a tensor's bytes tells."""

    digest: str
    """Type, shape and sha256."""
    is_finite: bool


_contents: dict[tuple[str, int, int, int], dict[str, _Content]] = {}


class StoredTensor(NamedTuple):
    """Where a tensor's bytes are."""

    file: Path
    dtype: str
    """As safetensors spells it: `F32`, `BF16`..."""
    shape: tuple[int, ...]
    begin: int
    """First byte in the file."""
    end: int
    """One after the last."""


def weight_files(folder: Path) -> tuple[list[Path], str | None]:
    """The safetensors files that loading reads, and the variant (`fp16`) that they are, where there is no plain one.

    One file counts before shards for transformers, and shards before one file for diffusers, as with the libraries.

    Raises:
        CheckpointError: there is none, or an index is unreadable.
    """
    for variant in (None, "fp16"):
        for stem in _STEMS:
            single, index = _names(folder, stem, variant)
            found = [path for path in ([single, *index] if stem == "model" else [*index, single]) if path.is_file()]
            if found:
                return ([found[0]] if found[0] == single else shards(found[0])), variant
    names = " or ".join(f"{stem}.safetensors" for stem in _STEMS)
    raise CheckpointError(
        "no safetensors weights", where=folder, expected=f"{names}, or shards", got=_others(folder), remedy=_REMEDY
    )


def _others(folder: Path) -> str:
    """What looks like weights in a folder that has none of the right name."""
    found = sorted(path.name for path in folder.glob("*") if path.suffix in _OTHER_ENDINGS)
    return ", ".join(found[:3]) + (", ..." if len(found) > 3 else "") if found else "none"


def _names(folder: Path, stem: str, variant: str | None) -> tuple[Path, list[Path]]:
    """The single file, and what an index may be called."""
    if variant is None:
        return folder / f"{stem}.safetensors", [folder / f"{stem}.safetensors.index.json"]
    indices = [f"{stem}.safetensors.index.{variant}.json", f"{stem}.{variant}.safetensors.index.json"]
    return folder / f"{stem}.{variant}.safetensors", [folder / name for name in indices]


def shards(index: Path) -> list[Path]:
    """The files that an index names, which lie beside it.

    Raises:
        CheckpointError: it is none, names others, or one is missing.
    """
    try:
        weight_map = json_object(index.read_bytes()).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError("no weight_map")
        names = set(map(str, weight_map.values()))
        if outside := [name for name in names if name != Path(name).name]:
            raise ValueError(f"{min(outside)!r}, which is not in this folder")
    except (OSError, ValueError) as error:
        raise CheckpointError("cannot read the index of the weights", where=index, got=error, remedy=_REMEDY) from None
    if absent := sorted(name for name in names if not (index.parent / name).is_file()):
        raise CheckpointError(
            "a file of weights is missing", where=index, expected=absent[0], got=_others(index.parent), remedy=_REMEDY
        )
    return sorted(index.parent / name for name in names)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Name -> tensor, of all files that loading reads.

    Raises:
        CheckpointError: a file is missing or is no safetensors file.
    """
    found: dict[str, StoredTensor] = {}
    for path in weight_files(folder)[0]:
        for name, tensor in tensors_in(path):
            if name in found:
                raise CheckpointError(
                    "a tensor is in two files",
                    where=folder,
                    got=f"{name} in {found[name].file.name} and {path.name}",
                    remedy=_REMEDY,
                )
            found[name] = tensor
    return found


def tensors_in(path: Path) -> Iterator[tuple[str, StoredTensor]]:
    """Names and places of the tensors in one file, in the order of their bytes.

    Source: the safetensors format: 8 bytes little-endian length, a JSON header, the tensors' bytes.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64)
            if is_pointer(head):
                raise ValueError(POINTER)
            if size < 8:
                raise ValueError(f"{size} bytes")
            (length,) = struct.unpack("<Q", head[:8])
            if length > min(size, _MAX_HEADER_BYTES):
                raise ValueError("the header is longer than the file: cut short, or another kind of file")
            file.seek(8)
            header = json_object(file.read(length))
        start = 8 + length
        found = [
            (
                name,
                StoredTensor(path, entry["dtype"], tuple(entry["shape"]), *(start + o for o in entry["data_offsets"])),
            )
            for name, entry in header.items()
            if name != "__metadata__"
        ]
        if any(not start <= each.begin <= each.end <= size for _, each in found):
            raise ValueError("it is cut short")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "not a whole safetensors file", where=path, got=str(error) or type(error).__name__, remedy=_REMEDY
        ) from None
    yield from sorted(found, key=lambda item: item[1].begin)


def digest_of(folder: Path, names: Iterable[str] | None = None, left_out: re.Pattern[str] | None = None) -> str:
    """sha256 of tensors' names, types, shapes and bytes; the same in whatever files they are.

    What all names begin with (`text_model.`) does not count. Digests of unchanged files are remembered.

    Args:
        folder: of the model.
        names: the tensors that count; by default all.
        left_out: tensors that don't count, where `names` are not given.

    Raises:
        CheckpointError: a file is missing or is no safetensors file, or a tensor that counts has numbers that are none.
    """
    each = _contents_of(folder, names, left_out)
    skip = common_prefix(sorted(each))
    return sha256_text(canonical_json({name[skip:]: each[name].digest for name in sorted(each)}))


def check_finite(folder: Path, names: Iterable[str] | None = None) -> None:
    """Refuse weights that are infinite or no numbers; a digest that is wanted later costs nothing more.

    `names`: the tensors that count; by default all.

    Raises:
        CheckpointError: there are some, or a file is missing or is no safetensors file.
    """
    _contents_of(folder, names, None)


def _contents_of(folder: Path, names: Iterable[str] | None, left_out: re.Pattern[str] | None) -> dict[str, _Content]:
    each = {name: content for path in weight_files(folder)[0] for name, content in _file_contents(path).items()}
    if names is None:
        names = [name for name in each if left_out is None or not left_out.search(name)]
    wanted = {name: each[name] for name in sorted(set(names))}
    if infinite := [name for name, content in wanted.items() if not content.is_finite]:
        raise CheckpointError(
            "weights that are no finite numbers",
            where=folder,
            got=", ".join(infinite[:3]) + (", ..." if len(infinite) > 3 else ""),
            remedy="Get the model again.",
        )
    return wanted


def common_prefix(names: Sequence[str]) -> int:
    """Length of what all dotted names begin with (`text_model.`)."""
    parts = [name.split(".")[:-1] for name in names]
    count = 0
    while parts and all(len(each) > count and each[count] == parts[0][count] for each in parts):
        count += 1
    return len("".join(f"{part}." for part in parts[0][:count])) if parts else 0


def _file_contents(path: Path) -> dict[str, _Content]:
    """Name -> content of each tensor of a file."""
    tensors = list(tensors_in(path))
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino)
    if key not in _contents:
        with path.open("rb") as file:
            _contents[key] = {name: _content(file, each) for name, each in tensors}
    return _contents[key]


def _content(file: Any, tensor: StoredTensor) -> _Content:
    file.seek(tensor.begin)
    digest, left, is_finite = hashlib.sha256(), tensor.end - tensor.begin, True
    while left and (block := file.read(min(left, _BLOCK_BYTES))):
        digest.update(block)
        is_finite = is_finite and _all_finite(block, tensor.dtype)
        left -= len(block)
    return _Content(f"{tensor.dtype} {list(tensor.shape)} {digest.hexdigest()}", is_finite)


def _all_finite(block: bytes, dtype: str) -> bool:
    """Whether each number is one; of types without infinity, that is so."""
    if dtype not in _EXPONENTS:
        return True
    import numpy as np  # here, as names and shapes are read by commands that do without

    whole, exponent = _EXPONENTS[dtype]
    numbers = np.frombuffer(block, whole, len(block) // np.dtype(whole).itemsize)
    return not bool(((numbers & exponent) == exponent).any())
