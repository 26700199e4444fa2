"""Write `report.html`: one self-contained page from what the stages left in the run folder.

pea report --config configs/demo.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from data_tools.report.page import write_report
from pea.config import Config
from stages.command.common import stage_main
from stages.command.console import Console


def run(config: Config, console: Console) -> None:
    """Write the page and say where.

    Raises:
        EvaluationError: the adapter has not been evaluated yet.
    """
    path = write_report(config)
    console.print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return stage_main(run, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
