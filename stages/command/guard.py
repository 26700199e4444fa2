"""What every command line ends with: errors of one line, and exit codes. Imports nothing that takes time."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from pea.errors import PeaError, is_disk_full

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
_MISTAKES = (None, errno.ENOENT, errno.EEXIST, errno.EBADF, errno.EINVAL)
"""Errors of the system that a mistake in the program makes too: their traceback is shown."""


def guarded(action: Callable[[], int]) -> int:
    """The exit code of ``action``; an error that a user can meet becomes one line on stderr."""
    try:
        code = action()
        sys.stdout.flush()
        return code
    except PeaError as error:
        return _fail(str(error), getattr(error, "exit_code", EXIT_ERROR))
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except OSError as error:
        if is_disk_full(error):
            return _fail(f"the disk is full: {error}. Make room and run the same command again.", EXIT_ERROR)
        if error.errno in _MISTAKES:
            raise
        return _fail(f"the system refuses: {error}. Mend that and run the same command again.", EXIT_ERROR)
    except KeyboardInterrupt:
        print("pea: interrupted; to go on, run the same command", file=sys.stderr)
        return EXIT_INTERRUPTED


def _fail(message: str, code: int) -> int:
    print(f"pea: error: {message}", file=sys.stderr)
    return code
