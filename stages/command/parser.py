"""A parser that says what a misspelt command or option may have meant. Imports nothing that takes time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from pea.spelling import nearest

_REQUIRED = "the following arguments are required"


class CommandParser(argparse.ArgumentParser):
    """An ``ArgumentParser`` with "did you mean"; the parsers of its subcommands are such ones too."""

    _words: Sequence[str] = ()

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = [str(choice) for choice in action.choices or ()]
        if choices and value not in choices and (near := nearest(str(value), choices)):
            given = f"invalid choice: {value!r} (did you mean {near}?)"
            raise argparse.ArgumentError(action, f"{given}; there are {', '.join(choices)}")
        super()._check_value(action, value)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of ``ArgumentParser``; the words are kept for what is said of an error."""
        self._words = [str(word) for word in (sys.argv[1:] if args is None else args)]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """As of ``ArgumentParser``; a misspelt option is why a required one seems to be missing."""
        if _REQUIRED in message:
            message = self._without_optional(message) + self._misspelt(message)
        super().error(message)

    def _without_optional(self, message: str) -> str:
        """Without the positional arguments of which there may be none, which argparse counts among the required."""
        head, _, names = message.partition(": ")
        optional = {str(action.metavar or action.dest) for action in self._actions if action.nargs == "*"}
        needed = [name for name in names.split(", ") if name not in optional]
        return f"{head}: {', '.join(needed)}" if needed else message

    def _misspelt(self, message: str) -> str:
        options, words = list(_options(self, self._words)), self._words
        names = [word.partition("=")[0] for word in words if word.startswith("--")]
        unknown = [name for name in names if not any(option.startswith(name) for option in options)]
        hints = [f"{name} (did you mean {near}?)" for name in unknown if (near := nearest(name, options))]
        if hints:
            return f"; not known: {', '.join(hints)}"
        files = [word for word in words if word.endswith((".yaml", ".yml"))]
        return f" (did you mean --config {files[0]}?)" if files and "--config" in message else ""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of ``ArgumentParser``; what is not known ends the program with the nearest that is."""
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.refuse(unknown, args or ())
        return arguments

    def refuse(self, unknown: Sequence[str], words: Sequence[str]) -> NoReturn:
        """End the program with an error about arguments among ``words`` that are ``unknown``."""
        options = list(_options(self, words))
        hints = [f"did you mean {near}?" for word in unknown if (near := nearest(word.partition("=")[0], options))]
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
