"""The interposing library: compiled from the C sources beside this file when it is needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SOURCES = sorted(Path(__file__).parent.glob("interpose*.c"))
_FLAGS = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers")
_HIDING = ("-fvisibility=hidden", "-fno-builtin")


def compiler() -> str | None:
    """The C compiler of this machine."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def reason_to_skip() -> str | None:
    """Why faults cannot be injected here; None: they can."""
    if not sys.platform.startswith("linux"):
        return "interposing with LD_PRELOAD takes Linux"
    if compiler() is None:
        return "the interposing library takes a C compiler (cc)"
    return None


@cache
def library() -> Path:
    """The compiled library, in a temporary folder that ends with this process.

    Raises:
        RuntimeError: it does not compile.
    """
    folder = tempfile.TemporaryDirectory(prefix="faults-")
    _FOLDERS.append(folder)
    path = Path(folder.name, "interpose.so")
    command = [str(compiler()), *_FLAGS, *_HIDING, "-o", str(path), *map(str, SOURCES), "-ldl", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the interposing library does not compile:\n{done.stderr}")
    return path


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []
