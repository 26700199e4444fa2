"""What dead writers of single files left goes when it is old; what a living one writes stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pea.storage import Location
from pea.storage.durable import temporary_sibling
from pea.storage.temporaries import clear_old_temporaries


def test_old_temporary_files_go_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    young, old, deep = (temporary_sibling(tmp_path / name) for name in ("a.json", "b.json", "below/c.png"))
    plain = tmp_path / "d.json"
    for path in (young, old, deep, plain):
        path.write_text("half of a f")
    for path in (old, deep, plain):
        os.utime(path, (time.time() - 3600,) * 2)
    clear_old_temporaries(Location.parse(tmp_path))
    assert [path.exists() for path in (young, old, deep, plain)] == [True, False, True, True]
    clear_old_temporaries(Location.parse(tmp_path), recursive=True)
    assert [path.exists() for path in (young, deep, plain)] == [True, False, True]


def test_where_nothing_is_there_is_nothing_to_clear(tmp_path: Path) -> None:
    clear_old_temporaries(Location.parse(tmp_path / "nothing"), recursive=True)
    assert not (tmp_path / "nothing").exists()
