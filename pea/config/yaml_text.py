"""Text around the configuration: YAML without surprises, overrides, and readable problems."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pea.errors import ConfigError
from pea.foreign_json import kind_of
from pea.spelling import nearest

MOST_BYTES = 4 << 20
"""Of a YAML file."""
MOST_VALUES = 200_000
"""Values, keys included, with every alias (``*name``) counted as all that it stands for."""
DEEPEST = 64
"""Lists and mappings inside one another."""
_USER_OF_URL = re.compile(r"://[^/\s]*@")  # may be a secret
_LIKE_ANYWHERE = 0.8
"""Least likeness of a key to one of another section."""
_SKETCH_KINDS = ("exact", "quantized", "positions", "count")


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars (``no`` is a language or a precision, ``1e-4`` a float); refuses duplicate keys."""

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        if self.flow_level >= DEEPEST:  # the scanner's time grows with the square of it
            raise yaml.YAMLError(f"line {self.line + 1}: more than {DEEPEST} levels")
        super().fetch_flow_collection_start(token)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (list, dict)):
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: a key must be a plain word")
            if key in seen:
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: key {key!r} occurs twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", _FLOAT, list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def _construct_int(_: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(node.value)  # decimal, where YAML 1.1 reads 010 as eight


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def read_yaml(path: Path, what: str = "configuration") -> dict[str, Any]:
    """The mapping in a YAML file, which may be of anybody's making.

    Raises:
        ConfigError: it cannot be read, or as ``parse_yaml``.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ConfigError(f"not a {what}", where=path, expected=f"{MOST_BYTES} bytes at most", got="a larger file")
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the {what}", where=path, got=error) from None
    return parse_yaml(text, where=str(path), what=what)


def parse_yaml(text: str, *, where: str, what: str = "configuration") -> dict[str, Any]:
    """Parse one YAML mapping.

    Raises:
        ConfigError: not YAML, not a mapping, or larger or deeper than a file of settings is.
    """
    try:
        raw = _load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError("not valid YAML", where=where, got=error) from None
    if not isinstance(raw, dict):
        raise ConfigError(f"not a {what}", where=where, expected="key: value lines", got=kind_of(raw))
    return raw


def _load(text: str) -> Any:
    """One document as plain values; its size is known before any value is made.

    Raises:
        yaml.YAMLError, ValueError: it is not YAML, or too much.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError(f"more than {DEEPEST} levels") from None
    finally:
        loader.dispose()


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Values in a node and their levels; ``known``: the same of the nodes seen before, None while one is measured.

    An alias is the same node again: nine lines of nine aliases each are hundreds of millions of values.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1, 0
    if id(node) in known:
        measured = known[id(node)]
        if measured is None:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a value that contains itself")
        return measured
    known[id(node)] = None
    children = (each for pair in node.value for each in (pair if isinstance(pair, tuple) else (pair,)))
    size, levels = 1, 0
    for child in children:
        more, deeper = _measure(child, known)
        size, levels = size + more, max(levels, deeper + 1)
        if size > MOST_VALUES or levels > DEEPEST:
            limit = f"{MOST_VALUES} values, aliases expanded" if size > MOST_VALUES else f"{DEEPEST} levels"
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: more than {limit}")
    known[id(node)] = size, levels
    return size, levels


def merge_files(raw: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two parsed files as one: sections are merged key by key, everything else (and a sketch) is replaced."""
    merged = dict(raw)
    for key, value in above.items():
        below = merged.get(key)
        both_sections = isinstance(below, dict) and isinstance(value, dict) and "kind" not in value
        merged[key] = merge_files(below, value) if both_sections and below is not None else value
    return merged


def merge_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Apply ``dotted.key=value`` overrides to parsed YAML in place; return a line per bad one."""
    problems = []
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name or not all(name.split(".")):
            problems.append(f"override {override!r} is not of the form dotted.key=value")
            continue
        try:
            value = _load(text)
        except (yaml.YAMLError, ValueError) as error:
            problems.append(f"override {override!r} is not valid YAML: {' '.join(str(error).split())}")
            continue
        problems += _set_dotted(raw, name, value)
    return problems


def merge_settings(raw: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Settings over parsed YAML, and a line per bad one: nested as a file's, a dotted key as an override."""
    settings = copy.deepcopy(dict(settings))
    dotted = [key for key in settings if "." in key]
    nested = {key: value for key, value in settings.items() if key not in dotted}
    merged, problems, seen = merge_files(dict(raw), nested), [], list(names_in(nested))
    for name in dotted:
        if not all(name.split(".")):
            problems.append(f"setting {name!r} is not of the form dotted.key")
        elif any(f"{one}.".startswith(f"{other}.") for each in seen for one, other in ((name, each), (each, name))):
            problems.append(f"setting {name} occurs twice")
        else:
            problems += _set_dotted(merged, name, settings[name])
        seen.append(name)
    return merged, problems


def names_in(settings: Mapping[str, Any]) -> Iterator[str]:
    """The dotted name of every value in nested or dotted settings."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from (f"{key}.{name}" for name in names_in(value))
        else:
            yield key


def _set_dotted(raw: dict[str, Any], name: str, value: Any) -> list[str]:
    *parents, last = name.split(".")
    here = raw
    for depth, parent in enumerate(parents, start=1):
        if here.get(parent) is None:
            here[parent] = {}
        here = here[parent]
        if not isinstance(here, dict):
            return [f"setting {name}: {'.'.join(parents[:depth])} holds a value, not keys"]
    here[last] = value
    return []


def describe_problems(errors: Iterable[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """One line per validation error; an unknown key names the nearest valid one.

    A list that is too short only without its wrong items is no problem of its own.
    """
    found = list(errors)
    parents = {error["loc"][:length] for error in found for length in range(len(error["loc"]))}
    own = [error for error in found if error["loc"] not in parents]
    return [_USER_OF_URL.sub("://***@", _describe(_dotted(error["loc"]), error, names)) for error in own]


def _dotted(location: tuple[int | str, ...]) -> str:
    """``("cache", "sketch", "count", "ratio")`` -> ``cache.sketch.ratio``, without the kind."""
    kept: list[str] = []
    for part in map(str, location):
        under_sketch = kept[-1:] == ["sketch"] or kept[-2:-1] == ["block_sketches"]
        if not (under_sketch and part in _SKETCH_KINDS) and "function-wrap[" not in part:
            kept.append(part)
    return ".".join(kept)


def _describe(name: str, error: Mapping[str, Any], names: Sequence[str]) -> str:
    if error["type"] == "extra_forbidden":
        nearest = nearest_name(name, names)
        return f"unknown key {name}" + (f" (did you mean {nearest}?)" if nearest else "")
    if error["type"] == "missing":
        return f"{name} is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    said = f"{name}: {message[:1].lower()}{message[1:]}" if name else message
    if isinstance(error["input"], Mapping):  # a section whose settings do not go together
        return said
    value = _USER_OF_URL.sub("://***@", repr(error["input"]))
    return f"{said} (got {value if len(value) < 60 else value[:57] + '...'})"


def nearest_name(name: str, names: Sequence[str]) -> str | None:
    """The valid name that a wrong one most likely meant: a sibling first, then any with that last word."""
    parent, _, last = ".".join(part for part in name.split(".") if not part.isdigit()).rpartition(".")
    siblings = {other.rpartition(".")[2]: other for other in names if other.rpartition(".")[0] == parent}
    by_last = {other.rpartition(".")[2]: other for other in names}
    if close := nearest(last, siblings):
        return siblings[close]
    if close := nearest(last, by_last, _LIKE_ANYWHERE):
        return by_last[close]
    return nearest(name, names, _LIKE_ANYWHERE)
