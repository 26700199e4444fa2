"""Compare identities: what differs, field by field and tar by tar, and whether a cache may grow into another."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pea.cache.identity import ATTENTION, BLOCKS, DESCRIBED, DRAWS, READING, SKETCHES, TARS, Identity, retired_tars
from pea.cache.model_fields import MISSING as MISSING
from pea.corpus.caption_tables import BY_TAR, CaptionTables
from pea.errors import IdentityError
from pea.storage.digests import canonical_json


@dataclass(frozen=True)
class Difference:
    """One field in which two identities differ."""

    field: str
    cached: Any
    wanted: Any

    def __str__(self) -> str:
        return " | ".join(_lines(self.field, self.cached, self.wanted))


def compare(cached: Identity, wanted: Identity) -> list[Difference]:
    """Every difference, tar by tar; fields that ``wanted`` does not mention are not compared."""
    differences: list[Difference] = []
    for name, value in as_recorded(wanted, cached).fields.items():
        held = cached.fields.get(name, MISSING)
        if name == TARS and held != MISSING:
            differences += _compare_items(name, _by_name(held), _by_name(value))
        elif name == SKETCHES and held != MISSING:
            differences += _compare_items(name, held, value)
        elif held != value:
            differences.append(Difference(name, held, value))
    return differences


def as_recorded(wanted: Identity, cached: Identity) -> Identity:
    """`wanted`, each field as the older version that made the cache recorded it, where that means the same."""
    fields = dict(wanted.fields)
    for name, means_same in wanted.means_same.items():
        held = cached.fields.get(name, MISSING)
        if name in fields and held != fields[name] and means_same(held):
            if held == MISSING:
                del fields[name]
            else:
                fields[name] = held
    return Identity(fields)


def without_new_captions(wanted: Identity, cached: Identity, *, besides: Collection[str] = ()) -> Identity:
    """What can be asked of a cache without a teacher, whose captions may be cleaned or completed in tables later on.

    ``besides``: names of tars that are made again, with the captions that they have now.
    """
    held = {name for name, tar in cached.tars.items() if tar.captions is None and name not in besides}
    tars = [replace(tar, captions=None) if name in held else tar for name, tar in wanted.tars.items()]
    return Identity({**wanted.fields, TARS: [tar.entry for tar in tars]}, wanted.means_same)


def with_former_descriptions(wanted: Identity, cached: Identity, tables: CaptionTables) -> Identity:
    """What can be asked of a cache of an earlier version, in which one digest stands for the tables of all its tars.

    Those tars stay as they are as long as that digest holds; others may be added, each with a digest of its own.

    Raises:
        StorageError: a table cannot be read.
    """
    recorded = cached.fields.get(DESCRIBED, {}).get("tables", BY_TAR)
    if recorded == BY_TAR:
        return wanted
    former = {name for name, tar in cached.tars.items() if tar.captions is None}
    found = tables.digest({*former, *retired_tars(cached)})
    described = {**wanted.fields[DESCRIBED], "tables": recorded if recorded == tables.digest() else found}
    tars = [replace(tar, captions=None) if name in former else tar for name, tar in wanted.tars.items()]
    return Identity({**wanted.fields, DESCRIBED: described, TARS: [tar.entry for tar in tars]}, wanted.means_same)


def check_same(cached: Identity, wanted: Identity, *, where: object) -> None:
    """Make sure that a cache is what is asked for.

    Raises:
        IdentityError: it is not; names each field, both values and the remedy.
    """
    differences = compare(cached, wanted)
    if differences:
        raise _mismatch(differences, where, "add tars, draws, blocks or attention queries with `pea cache --extend`")


def check_extends(cached: Identity, wanted: Identity, *, where: object) -> None:
    """Make sure that a cache can grow into ``wanted`` by new files only.

    Raises:
        IdentityError: something would change or get lost.
    """
    refused = [difference for difference in compare(cached, wanted) if not _only_adds(difference, cached, wanted)]
    if refused:
        older = any(difference.field == READING and difference.cached == MISSING for difference in refused)
        rules = "its tars were read by older rules, so it can be used as it is, but not extended"
        adds = "--extend only adds tars, draws and blocks, and attention queries where there are none"
        raise _mismatch(refused, where, rules if older else adds)


def _only_adds(difference: Difference, cached: Identity, wanted: Identity) -> bool:
    if difference.field == DRAWS:
        return bool(cached.fields[DRAWS] and wanted.fields[DRAWS] > cached.fields[DRAWS])
    if difference.field == BLOCKS:
        return set(cached.blocks) <= set(wanted.blocks)
    if difference.field == ATTENTION:
        return difference.cached is None
    return difference.field.startswith((f"{TARS}[", f"{SKETCHES}[")) and difference.cached == MISSING


def _mismatch(differences: list[Difference], where: object, hint: str) -> IdentityError:
    hint = _tar_hints(differences) or hint
    return IdentityError(
        "the cache was made from something else",
        where=where,
        got=" | ".join(map(str, differences)),
        remedy=f"Restore what the cache was made from, or choose another run_dir for a new cache; {hint}.",
        differences=differences,
    )


def _tar_hints(differences: list[Difference]) -> str:
    """What to do where tars are all that differs, and not by being new."""
    tars = [(each, each.field.removeprefix(f"{TARS}[").removesuffix("]")) for each in differences]
    if not all(each.field.startswith(f"{TARS}[") for each in differences):
        return ""
    changed = [name for each, name in tars if MISSING not in (each.cached, each.wanted)]
    gone = [name for each, name in tars if each.wanted == MISSING]
    hints = [f"make the samples of a changed tar again with `pea cache --replace {changed[0]}`"] if changed else []
    hints += [f"take a tar that is gone out with `pea cache --retire {gone[0]}`"] if gone else []
    return "; ".join(hints)


def _compare_items(name: str, held: Mapping[str, Any], value: Mapping[str, Any]) -> Iterator[Difference]:
    for key in sorted({*held, *value}):
        if held.get(key) != value.get(key):
            yield Difference(f"{name}[{key}]", held.get(key, MISSING), value.get(key, MISSING))


def _by_name(tars: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {each["name"]: dict(each) for each in tars}


def _lines(name: str, cached: Any, wanted: Any) -> Iterator[str]:
    """One line for each key that differs, however deep inside."""
    if isinstance(cached, dict) and isinstance(wanted, dict) and "sha256" not in wanted:
        for key in sorted({*cached, *wanted}):
            if cached.get(key, MISSING) != wanted.get(key, MISSING):
                yield from _lines(f"{name}.{key}", cached.get(key, MISSING), wanted.get(key, MISSING))
    else:
        yield f"{name}: the cache has {_short(cached)}, wanted {_short(wanted)}"


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return value[:12] + "…"
    if isinstance(value, dict) and "sha256" in value:
        captions = f", captions beside it {value['captions'][:12]}…" if value.get("captions") else ""
        return f"{value['size_bytes']} bytes, sha256 {value['sha256'][:12]}…{captions}"
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= 160 else text[:157] + "…"
