"""What a user calls a corpus on a command line, as a configuration has it: patterns of tars, or tables of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pea.errors import ConfigError


def parallel_source(places: Sequence[str]) -> dict[str, object]:
    """Tars, or tables of texts whose images the teacher draws.

    Raises:
        ConfigError: some of both, or a folder that holds something, and no tars.
    """
    from pea.corpus.tables import means_table

    tables = [place for place in places if means_table(place)]
    if not tables:
        return {"tars": tar_patterns(places)}
    if len(tables) < len(places):
        raise ConfigError("tars and tables cannot be one corpus", where="--parallel", got=", ".join(places))
    return {"texts": tables[0] if len(tables) == 1 else tables}


def tar_patterns(places: Sequence[str]) -> list[str]:
    """Patterns of the tars; of a folder, of those in it.

    Raises:
        ConfigError: a folder holds something, and no tars.
    """
    found = []
    for place in places:
        folder = Path(place)
        if "://" in place or not folder.is_dir():
            found.append(place)
            continue
        endings = [ending for ending in ("*.tar", "*.tar.gz", "*.tgz") if next(folder.glob(ending), None)]
        if not endings and next(folder.iterdir(), None):
            raise _no_tars(folder)
        found += [str(folder / ending) for ending in endings or ["*.tar"]]
    return found


def _no_tars(folder: Path) -> ConfigError:
    """What is in the folder instead decides what to do with it."""
    from pea.corpus.tables import is_table

    table = next((path for path in sorted(folder.iterdir()) if path.is_file() and is_table(path.name)), None)
    remedy = f"Pack images first: `pea data pack {folder} --out FOLDER`."
    if table is not None:
        remedy = f"Captions without images: --parallel '{folder}/*{table.suffix}'. With images: `pea data pack` first."
    return ConfigError("no tars in this folder", where=folder, expected="*.tar, *.tar.gz or *.tgz", remedy=remedy)
