"""Every setting, from the JSON schema of the configuration's models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pea.config import Config
from stages.reference_pages.markdown import prose, table

_SETTINGS = """# Settings

Every setting that a configuration may contain, with its type, its default and its meaning. A configuration is a YAML
file; of several `--config` files, a later one replaces the settings of the earlier ones, and words
`section.key=value` on the command line replace those of all files. Unknown keys are refused. `--dry-run` prints the
resolved configuration with every default filled in.

`teacher`, `corpora` and `cache` (but for `cache.run`) are *identity*: they decide what a cache contains, and a cache
that was made from something else is refused. Everything else is a run option.
"""


def settings() -> str:
    """Every setting, a table for each section of the configuration."""
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    places: dict[str, dict[str, None]] = {}  # dicts keep the order, and each path once
    for path, name in _sections("", "", schema, definitions):
        places.setdefault(name, {})[path] = None
    parts = [_SETTINGS]
    for name, found in places.items():
        paths = list(found)
        section = definitions.get(name, schema)
        prefix = f"{paths[0]}." if len(paths) == 1 and paths[0] and paths[0][-1] not in "]}" else ""
        rows = [
            (
                f"`{prefix}{field}`",
                _type(about, definitions),
                _default(field, about, section),
                _meaning(about, definitions),
            )
            for field, about in section["properties"].items()
        ]
        title = ", ".join(f"`{path}`" for path in paths) if paths[0] else "The root"
        title = f"A sketch of {title}" if paths[0].startswith("{") else title
        below = table(("setting", "type", "default", "meaning"), rows)
        parts.append(f"## {title}\n\n{prose(section['description'])}\n\n{below}")
    return "\n".join(parts)


def _sections(
    path: str, name: str, section: Mapping[str, Any], definitions: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Path and name of a section and of those below it."""
    yield path, name
    for key, field in section["properties"].items():
        below = f"{path}.{key}".lstrip(".")
        for choice in (field, *field.get("anyOf", ())):
            for kind, reference in choice.get("discriminator", {}).get("mapping", {}).items():
                yield f"{{kind: {kind}}}", _last(reference)
        for found in _references(field):
            inside = ".NAME" if _is_map(field) else "[]" if "items" in field else ""
            yield from _sections(below + inside, found, definitions[found], definitions)


def _meaning(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Its docstring; pydantic leaves out one that the section says already."""
    return prose(field.get("description") or definitions[_references(field)[0]]["description"])


def _references(field: Mapping[str, Any]) -> list[str]:
    """Names of the sections that a field holds: itself, one or nothing, a list of them, or a map of them."""
    choices = [field, field.get("items", {}), *field.get("anyOf", ())]
    choices += [_value_of_map(field)] if _is_map(field) else []
    return [_last(choice["$ref"]) for choice in choices if "$ref" in choice]


def _is_map(field: Mapping[str, Any]) -> bool:
    return field.get("type") == "object"


def _value_of_map(field: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = field.get("additionalProperties") or next(iter(field["patternProperties"].values()))
    return found


def _last(reference: str) -> str:
    return reference.rpartition("/")[2]


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_PLAIN = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "null": "null"}


def _type(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "discriminator" in field:
        return "a sketch"
    if "anyOf" in field:
        return " or ".join(_type(choice, definitions) for choice in field["anyOf"])
    if "$ref" in field:
        return "a section"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        if "prefixItems" in field:
            return f"[{', '.join(_type(item, definitions) for item in field['prefixItems'])}]"
        return f"list of {_type(field['items'], definitions)}"
    if _is_map(field):
        return f"map of name to {_type(_value_of_map(field), definitions)}"
    if field.get("format") == "path":
        return "path"
    bounds = [f"{sign} {field[name]:g}" for name, sign in _BOUNDS.items() if name in field]
    return " ".join([_PLAIN[field["type"]], ", ".join(bounds)]).strip()


def _default(name: str, field: Mapping[str, Any], section: Mapping[str, Any]) -> str:
    """As it would be written in a file; a section's defaults are in its own table."""
    if name in section.get("required", ()):
        return "required"
    if _references(field) and not _is_map(field) and isinstance(field.get("default"), dict):
        return "see below"
    return f"`{_yaml(field.get('default', {}))}`"


def _yaml(value: Any) -> str:
    """A value in YAML of one line, without what a section of a list leaves to its defaults."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items() if each is not None) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
