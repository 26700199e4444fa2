"""Tars that turn out unusable while one after another is read: the rest is read all the same, and all are named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pea.errors import CorpusError, TarUnusableError
from pea.plurals import count_of

_NAMED = 20
"""Tars that one error names."""


class DamagedTars:
    """Those met so far."""

    def __init__(self) -> None:
        self._errors: list[TarUnusableError] = []

    def __len__(self) -> int:
        return len(self._errors)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """What is done with one tar: where that is unusable, it is noted, and the rest of the block left out."""
        try:
            yield
        except TarUnusableError as error:
            self._errors.append(error)

    def refuse(self, remedy: str | None = None) -> None:
        """Name all of them, if there are any.

        Raises:
            CorpusError: there are.
        """
        if self._errors:
            raise as_one_error(self._errors, remedy)


def as_one_error(damaged: Sequence[CorpusError], remedy: str | None = None) -> CorpusError:
    """One error that names what several name; of one alone, that one."""
    if len(damaged) == 1:
        return damaged[0]
    more = [f"and {len(damaged) - _NAMED} more"] if len(damaged) > _NAMED else []
    got = " | ".join([*map(str, damaged[:_NAMED]), *more])
    return CorpusError(f"{count_of(len(damaged), 'tar')} cannot be used", got=got, remedy=remedy)


FINISHED_IS_KEPT = "What is finished is kept: mend them or leave them out, and run the same command again."
"""The remedy of a command that goes from tar to tar."""
