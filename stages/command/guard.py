"""What every command line ends with: errors of one line, and exit codes. Imports nothing that takes time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from pea.errors import PeaError, is_disk_full

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


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
        if not is_disk_full(error):
            raise
        return _fail(f"the disk is full: {error}. Make room and run the same command again.", EXIT_ERROR)
    except KeyboardInterrupt:
        print("pea: interrupted; to go on, run the same command", file=sys.stderr)
        return EXIT_INTERRUPTED


def _fail(message: str, code: int) -> int:
    print(f"pea: error: {message}", file=sys.stderr)
    return code
