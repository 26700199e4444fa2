"""The log of a training run: one row of numbers a line."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pea.storage.durable import write_text

Row = dict[str, float]


class TrainLog:
    """`train_log.jsonl`: one row of numbers per line; a row that a killed run left half-written is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[Row]:
        """Every whole row."""
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text("utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def keep(self, step: int) -> None:
        """Forget the rows after a step, which a resumed run writes again."""
        kept = [row for row in self.rows() if row["step"] <= step]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def append(self, row: Row) -> None:
        """Add a row, durably: a saved state that outlives a power cut finds the rows before it."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
