"""Other people's text is shown, never obeyed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.table import Table

from data_tools.tables import say, table
from stages.command.console import Console, bold

ROOT = Path(__file__).parents[3]
EVIL = "[/] [bold]x[/] :smile: \x1b[31m \x9b2J \u202e \ud800 end"
SHOWN = r"[/] [bold]x[/] :smile: \x1b[31m \x9b2J \u202e \ud800 end"


def _printed(*what: object) -> str:
    file = io.StringIO()
    console = Console(file=file)
    for each in what:
        console.print(each)
    return file.getvalue()


def test_strings_are_shown_as_they_are() -> None:
    assert _printed(EVIL) == SHOWN + "\n"
    assert _printed(bold("a ", EVIL)) == f"a {SHOWN}\n"


def test_cells_of_tables_too() -> None:
    cells = Table(EVIL)
    cells.add_row(EVIL)
    assert _printed(cells).count(SHOWN) == 2


def test_lines_are_not_wrapped_where_nobody_watches() -> None:
    assert _printed("word " * 60).count("\n") == 1


def test_cells_of_tables_neither() -> None:
    cells = Table("place", "what")
    cells.add_row("a long place / " * 10, "word " * 20)
    assert _printed(cells).count("\n") == 5, "two borders, the head, the line below it, and one row"


def test_plain_output(capsys: pytest.CaptureFixture[str]) -> None:
    say(table(["head"], [[EVIL], ["two\nlines"]]))
    assert capsys.readouterr().out == f"head\n{SHOWN}\ntwo\\nlines\n"


def test_no_stage_shows_text_in_another_way() -> None:
    sources = [path for folder in ("stages", "data_tools") for path in (ROOT / folder).rglob("*.py")]
    users = [path.relative_to(ROOT).as_posix() for path in sources if "rich.console" in path.read_text("utf-8")]
    assert users == ["stages/command/console.py"]


def test_a_reader_that_has_gone_is_not_damage() -> None:
    """rich ends a program with 1 then, which here means that damage or a difference was found."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        Console(file=Gone()).print("a line")
