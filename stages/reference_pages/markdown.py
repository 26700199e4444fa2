"""Markdown of the reference pages."""

from __future__ import annotations

from collections.abc import Sequence


def prose(text: str, *, keep_lines: bool = False) -> str:
    """A docstring or a help text as markdown that may stand in a cell of a table."""
    text = text.replace("``", "`").replace("%%", "%").replace("|", r"\|")
    return text if keep_lines else " ".join(text.split())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
