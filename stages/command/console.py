"""The console of every command: text is text, whoever wrote it."""

from __future__ import annotations

from typing import Any, NoReturn

from rich.console import Console as RichConsole
from rich.text import Text

from pea.copies import as_stored
from pea.foreign_text import visible

_WITHOUT_TERMINAL = 1000
"""Columns of a table at most."""


class Console(RichConsole):
    """Shows strings as they are: no markup, no emoji codes, no terminal escapes; styles are given as ``Text``.

    Prompts, captions, keys, paths and other people's messages would otherwise vanish, end the program (``[/]``), or
    command the terminal. Without a terminal, neither lines nor tables are fitted to a width that nobody has.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False} | options)
        self.soft_wrap = not self.is_terminal
        if self.soft_wrap and "width" not in options:
            self.width = _WITHOUT_TERMINAL

    def on_broken_pipe(self) -> NoReturn:
        """The reader has gone (`| head`): said by the exit code of an error; rich's own says that damage was found."""
        raise BrokenPipeError

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string that is printed, or stands in a table, passes here."""
        return super().render_str(visible(as_stored(text), keep="\n\t"), **options | {"markup": False, "emoji": False})


def bold(text: str, after: str = "") -> Text:
    """A line that begins with what is worth finding again."""
    return Text.assemble((visible(as_stored(text)), "bold"), visible(as_stored(after)))
