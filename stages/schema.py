"""Print the JSON schema of a configuration, with which editors complete settings, explain them and underline mistakes.

    pea schema          (into a file: > pea.schema.json)

The first line of a configuration then names that file: `# yaml-language-server: $schema=pea.schema.json`. No setting is
required by the schema, since a configuration may be laid over another one.
"""

from __future__ import annotations

import argparse
import json
from typing import Any


def schema() -> dict[str, Any]:
    """The schema of one configuration file (JSON schema, draft 2020-12)."""
    from pea.config import Config

    found = Config.model_json_schema()
    for section in (found, *found["$defs"].values()):
        section["required"] = [name for name in section.get("required", ()) if name == "kind"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "PEA-Cache configuration"}


def schema_text() -> str:
    """The same as text."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`pea schema` has no arguments."""


def run_arguments(arguments: argparse.Namespace) -> int:  # noqa: ARG001 - every command is handed its arguments
    """Print it."""
    print(schema_text(), end="")
    return 0
