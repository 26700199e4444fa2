"""The pages of options and of methods name what exists: every option, every method, and what the figure shows."""

from __future__ import annotations

import re

import pytest
import yaml

from data_tools.score_figure import figures_in
from pea.config import valid_names
from tests.docs.pages import ROOT

OPTIONS = (ROOT / "docs/results/training_options.md").read_text("utf-8")
METHODS = (ROOT / "docs/results/methods.md").read_text("utf-8")


def test_options_that_were_compared_exist() -> None:
    named = set(re.findall(r"`((?:train|student|cache)\.[a-z_0-9]+)", OPTIONS))
    assert len(named) > 20 and named <= set(valid_names())
    assert not re.search(r"\| [A-Z_]{3,} \|", OPTIONS), "a cell that is still to be filled"


def test_every_method_has_a_line() -> None:
    lines = [line for line in METHODS.splitlines() if line.startswith("| ")]
    named = set(re.findall(r"`([a-z_]+)`", "\n".join(line.split("|")[1] for line in lines)))
    assert {path.stem for path in (ROOT / "configs/methods").glob("*.yaml")} <= named


@pytest.mark.parametrize(
    ("world", "study"), [("On the small world", "methods"), ("On the world of things", "methods_things")]
)
def test_the_figure_of_the_methods_shows_their_table(world: str, study: str) -> None:
    """Both come out of one `pea sweep` of the study."""
    row = re.compile(r"\| \**`(\w+)`\** \|[^|]*\| \**([\d.]+) ± ([\d.]+)\** \| \**([\d.]+) ± ([\d.]+)\** \|")
    part = METHODS.partition(f"\n## {world}\n")[2].partition("\n## ")[0]
    table = {}
    for method, general, general_spread, culture, culture_spread in row.findall(part):
        table[method, "general"] = (float(general), float(general_spread))
        table[method, "culture"] = (float(culture), float(culture_spread))
    assert table == figures_in((ROOT / f"docs/images/{study}.svg").read_text("utf-8"))
    variants = yaml.safe_load((ROOT / f"configs/studies/{study}.yaml").read_text("utf-8"))["variants"]
    assert {method for method, _ in table} == set(variants)
