"""Walks over the cache: filling, extending, repairing, removing; made-up rows, no model."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pea.cache import Cache, Identity, base_arrays
from pea.cache.audit import audit, repair
from pea.cache.takedown import remove_samples
from pea.errors import PeaError
from stages.command.guard import guarded
from tests.cache_helpers import LATENT, CacheMaker, content, identity, value_rows
from tests.faults.scenario import Scenario

_SMALL = identity(("a",), draws=2)
_LARGE = identity(("a", "b"), draws=3, blocks=("down_blocks.0", "mid_block"))
_WHOLE = identity(("a", "b"))
_REMOVED = "a-24x32-1"


def _maker(folder: Path) -> CacheMaker:
    return CacheMaker(folder / "cache", samples_per_tar=3)


def _fill(folder: Path, wanted: Identity = _WHOLE, *, extend: bool = False) -> int:
    return guarded(lambda: 0 * len(_maker(folder).fill(wanted, extend=extend).shards))


def _result(folder: Path) -> dict[str, Any]:
    """Digests of all rows, what was dropped, and whether the audit is content."""
    cache = Cache.open(folder / "cache")
    rows = {name: _digest(value) for name, value in content(cache).items()}
    dropped = [[shard.tar, *map(str, entry)] for shard in cache.shards for entry in shard.record.dropped]
    return {**rows, "dropped": dropped, "problems": [str(each) for each in audit(cache.directory, jobs=1).problems]}


def _allowed(folder: Path) -> Path:
    return folder / "allowed.json"


def _digest(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:16]


def _between(folder: Path) -> None:
    """A reader who does not wait for the whole gets an error of ours, or rows that are right."""
    allowed = json.loads(_allowed(folder).read_text())
    try:
        found = content(Cache.open(folder / "cache", partial=True))
    except PeaError:
        return
    wrong = [name for name, value in found.items() if _digest(value) not in allowed.get(name, [])]
    assert not wrong, wrong


def _note_allowed(folder: Path, *caches: Cache) -> None:
    """Note the rows that a reader may be shown at any time."""
    allowed = json.loads(_allowed(folder).read_text()) if _allowed(folder).exists() else {}
    for cache in caches:
        for name, value in content(cache).items():
            allowed.setdefault(name, []).append(_digest(value))
    _allowed(folder).write_text(json.dumps(allowed))


def _note_made_elsewhere(folder: Path, wanted: Identity) -> None:
    with TemporaryDirectory() as other:
        _note_allowed(folder, _maker(Path(other)).fill(wanted))


def _prepare_fill(folder: Path) -> None:
    _note_made_elsewhere(folder, _WHOLE)


def _prepare_extend(folder: Path) -> None:
    _note_allowed(folder, _maker(folder).fill(_SMALL))
    _note_made_elsewhere(folder, _LARGE)


def _prepare_repair(folder: Path) -> None:
    """One array of tar a is cut short, and another file of tar b has a flipped bit."""
    cache = _maker(folder).fill(_WHOLE)
    _note_allowed(folder, cache)
    for tar, keep in (("a", 0.5), ("b", 1.0)):
        path = max(cache.shard_dir(tar).rglob("*"), key=lambda each: (each.stat().st_size, each.name))
        data = bytearray(path.read_bytes())
        data[3] ^= 16
        path.write_bytes(data[: int(len(data) * keep)])


def _repair(folder: Path) -> int:
    """As ``pea inspect check --repair`` and then ``pea cache``."""

    def work() -> int:
        cache = Cache.create_or_resume(folder / "cache", _WHOLE)
        repair(cache, audit(cache.directory, jobs=1))
        return _fill(folder)

    return guarded(work)


def _prepare_remove(folder: Path) -> None:
    cache = _maker(folder).fill(_WHOLE)
    _note_allowed(folder, cache)
    assert _leftovers(folder), "the search finds what is there"
    with TemporaryDirectory() as other:
        shutil.copytree(folder / "cache", Path(other, "cache"))
        remove_samples(Cache.open(Path(other, "cache")), "a", [_REMOVED])
        _note_allowed(folder, Cache.open(Path(other, "cache")))


def _remove(folder: Path) -> int:
    return guarded(lambda: 0 * len(remove_samples(Cache.open(folder / "cache"), "a", [_REMOVED])))


def _leftovers(folder: Path) -> list[str]:
    """Files that hold the removed sample's image or caption."""
    (spec,) = (spec for spec in base_arrays(LATENT, "float32", "float16") if spec.name == "latents_mean")
    sought = {"image": value_rows(spec, [f"a/{_REMOVED}"]).tobytes(), "caption": f"caption {_REMOVED}".encode()}
    files = [path for path in sorted((folder / "cache").rglob("*")) if path.is_file()]
    return [
        f"{what} in {path.relative_to(folder)}"
        for path in files
        for what, data in sought.items()
        if data in path.read_bytes()
    ]


FILL = Scenario(_fill, _result, _prepare_fill, _between)
EXTEND = Scenario(lambda folder: _fill(folder, _LARGE, extend=True), _result, _prepare_extend, _between)
REPAIR = Scenario(_repair, _result, _prepare_repair, _between)
REMOVE = Scenario(_remove, _result, _prepare_remove, _between, _leftovers)
