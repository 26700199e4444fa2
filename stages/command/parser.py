"""A parser that says what a misspelt command or option may have meant. Imports nothing that takes time."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn


class CommandParser(argparse.ArgumentParser):
    """An ``ArgumentParser`` with "did you mean"; the parsers of its subcommands are such ones too."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices and (near := _nearest(value, action.choices)):
            given = f"invalid choice: {value!r} (did you mean {near}?)"
            raise argparse.ArgumentError(action, f"{given}; there are {', '.join(map(str, action.choices))}")
        super()._check_value(action, value)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of ``ArgumentParser``; what is not known ends the program with the nearest that is."""
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.refuse(unknown, args or ())
        return arguments

    def refuse(self, unknown: Sequence[str], words: Sequence[str]) -> NoReturn:
        """End the program with an error about arguments among ``words`` that are ``unknown``."""
        options = list(_options(self, words))
        hints = [f"did you mean {near}?" for word in unknown if (near := _nearest(word.partition("=")[0], options))]
        self.error(f"unrecognized arguments: {' '.join(unknown)}" + (f" ({' '.join(hints)})" if hints else ""))


def subparsers_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Name -> parser of each subcommand; argparse has no public list of them."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            found |= action.choices
    return found


def _options(parser: argparse.ArgumentParser, words: Sequence[str]) -> Iterator[str]:
    """The options of a parser, and of the subcommands that the words go down to."""
    yield from (name for action in parser._actions for name in action.option_strings)  # noqa: SLF001
    below = subparsers_of(parser)
    for number, word in enumerate(words):
        if word in below:
            yield from _options(below[word], words[number + 1 :])
            return


def _nearest(word: Any, known: Iterable[Any]) -> str | None:
    return next(iter(difflib.get_close_matches(str(word), map(str, known), n=1, cutoff=0.6)), None)
