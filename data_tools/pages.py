"""Self-contained HTML pages from the templates beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2


def render_page(template: str, **values: Any) -> str:
    """The page that a template makes of these values; what it names and is not given is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template).render(values)
