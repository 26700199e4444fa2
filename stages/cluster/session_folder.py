"""The folder of a Ray of this machine's own: closed to other users, and cleared once its owner has ended.

Ray makes its folders writable for everybody, sockets among them, so they are put into one that nobody else can enter.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from pydantic import ValidationError

from pea.storage.processes import ProcessName, is_certainly_dead, this_process

_PREFIX = "pea-ray-"
_OWNER = "owner.json"
_LONGEST = 20
"""Characters of the folder above: the path of a socket has room for a hundred or so in all."""


def make() -> Path:
    """A new folder for Ray; those that ended commands of this user left are cleared.

    Raises:
        OSError: it cannot be made.
    """
    above = _above()
    _clear_dead(above)
    closed = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=above))  # for its owner alone
    (closed / _OWNER).write_text(this_process().model_dump_json(), encoding="utf-8")
    folder = closed / "ray"
    folder.mkdir()
    return folder


def clear(folder: Path) -> None:
    """Remove what ``make`` made, with all that is in it."""
    shutil.rmtree(folder.parent, ignore_errors=True)


def _above() -> Path:
    found = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return Path(found if len(found) <= _LONGEST else "/tmp")  # noqa: S108 - with a closed folder in it


def _clear_dead(above: Path) -> None:
    for closed in above.glob(f"{_PREFIX}*"):
        try:
            is_ours = closed.lstat().st_uid == os.getuid() and not closed.is_symlink()
            owner = ProcessName.model_validate_json((closed / _OWNER).read_text(encoding="utf-8"))
        except (OSError, ValueError, ValidationError):
            continue
        if is_ours and is_certainly_dead(owner):
            shutil.rmtree(closed, ignore_errors=True)
