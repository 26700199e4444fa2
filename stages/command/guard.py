"""What every command line ends with: errors of one line, and exit codes. Imports nothing that takes time."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from pea.errors import PeaError, is_disk_full
from pea.foreign_text import visible
from stages.command.extras import remedy_for

_OS_ERROR = re.compile(r'\(os error (\d+)\)(?: at path "([^"]*)")?')
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
EXIT_FOUND = 1
"""Damage or a difference was found, and nothing else; Python's own exit code for a traceback is not used."""
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def guarded(action: Callable[[], int]) -> int:
    """The exit code of ``action``; an error that a user can meet becomes one line on stderr.

    What the system refuses (a read-only folder, no room, no permission, a name too long) is such an error; anything
    else is ours, and keeps its traceback.
    """
    format_of_libraries, warnings.formatwarning = warnings.formatwarning, _warning_line
    try:
        code = action()
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except PeaError as error:
        return _fail(str(error), getattr(error, "exit_code", EXIT_ERROR))
    except BrokenPipeError:  # the reader of our output has gone
        _let_go_of_stdout()
        return EXIT_ERROR
    except ModuleNotFoundError as error:
        remedy = remedy_for(error.name)
        return _bug() if remedy is None else _fail(f"this needs a package more: {remedy}", EXIT_ERROR)
    except KeyboardInterrupt:
        return _fail("interrupted; to go on, run the same command", EXIT_INTERRUPTED, "")
    except OSError as error:
        if error.errno is None:
            return _bug()
        return _fail(_system_error(error), EXIT_ERROR)
    except MemoryError:
        return _fail("not enough memory", EXIT_ERROR)
    except Exception as error:  # noqa: BLE001  (nothing is hidden: it is shown whole)
        system_error = _system_error_in(error)
        return _bug() if system_error is None else _fail(_system_error(system_error), EXIT_ERROR)
    finally:
        warnings.formatwarning = format_of_libraries


def _warning_line(message: Warning | str, *_: object, **__: object) -> str:
    """A warning as a person at a command line reads it: without a line of this program's code."""
    return f"pea: warning: {visible(str(message))}\n"


def _system_error_in(error: Exception) -> OSError | None:
    """What the system refused a library that is written in Rust (safetensors, ...), which says it in its own errors."""
    found = _OS_ERROR.search(str(error))
    return OSError(int(found[1]), os.strerror(int(found[1])), *filter(None, [found[2]])) if found else None


def _system_error(error: OSError) -> str:
    where = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    what = f"{where or 'the system'}: {error.strerror}"
    if is_disk_full(error):
        return f"the disk is full: {what}. Make room and run the same command again."
    return f"{what}. {_place_to_write(error)}" if error.errno in _NOT_WRITABLE and error.filename else what


def _place_to_write(error: OSError) -> str:
    """Which setting names the place that this user may not write to (or read)."""
    from pea.storage.work import VARIABLE, work_folder

    place = Path(os.fsdecode(error.filename)).absolute()
    if place in (work_folder(), *work_folder().parents) or place.is_relative_to(work_folder()):
        return f"Copies of what is in buckets go there: let {VARIABLE} name a folder that this user may write to."
    return "This user may not write or read there: give another place, or the right to it."


def _bug() -> int:
    traceback.print_exc()
    return _fail("this is a bug in PEA-Cache; please report the lines above", EXIT_ERROR)


def _fail(message: str, code: int, kind: str = "error: ") -> int:
    try:
        print(f"pea: {kind}{visible(message)}", file=sys.stderr)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # nobody can be told, or what was printed before cannot be written
        _let_go_of_stdout()
    return code


def _let_go_of_stdout() -> None:
    """Keep Python from trying again at its end, with an exit code of its own."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
