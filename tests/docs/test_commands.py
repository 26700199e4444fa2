"""Every command in a page parses: it exists, its options are known, the files and settings that it names are there."""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pea.config import load_config
from stages import cli, generate, sweep
from stages.command.parser import CommandParser
from tests.docs.pages import FOLDERS, PAGES, ROOT, blocks, code_spans, name, prose

LANGUAGES = {"sh", "yaml", "json", "python", "text"}
MODULES = ("stages", "data_tools", "tests.benchmarks")
"""Packages whose modules are commands of this project."""
DEMO = "configs/demo.yaml"


class _Parsed(BaseException):
    """Ends a command where it has read its command line."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every shell command of a page."""
    for block in blocks(page):
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                words = words[: words.index(">")] if ">" in words else words
                if words:
                    yield words


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace | None:
    """The arguments of one of this project's commands; None where the words are something else."""
    if words[0] == "pea":
        return cli.parse(words[1:])
    module = words[words.index("-m") + 1] if "-m" in words else ""
    if not module.startswith(MODULES):
        return None
    read = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> None:
        raise _Parsed(read(parser, argv))

    with monkeypatch.context() as patch, pytest.raises(_Parsed) as stopped:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(CommandParser, "parse_args", stop)
        importlib.import_module(module).main(words[words.index(module) + 1 :])
    return stopped.value.arguments


def check_settings(arguments: argparse.Namespace, made: set[str]) -> None:
    """Configuration files are there (or made by the page), and the settings are settings."""
    given = getattr(arguments, "config", None) or []
    files = [str(path) for path in (given if isinstance(given, list) else [given])]
    assert all(Path(file).is_file() or file == "FILE" or file in made for file in files)
    words = generate.split_words(arguments.words)[1] if hasattr(arguments, "words") else []
    settings = [*words, *getattr(arguments, "set", []), *getattr(arguments, "overrides", [])]
    load_config([file for file in files if Path(file).is_file()] or DEMO, settings)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_parse(page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made: set[str] = set()
    for words in commands(page):
        try:
            arguments = parsed(words, monkeypatch)
        except SystemExit:
            pytest.fail(f"{name(page)}: {' '.join(words)}\n{capsys.readouterr().err}")
        if arguments is not None:
            made |= {str(getattr(arguments, "out", ""))}
            if arguments.__dict__.get("command") == "sweep":
                arguments.dry_run = True
                assert sweep.run_arguments(arguments) == 0
            else:
                check_settings(arguments, made)
        for word in words:
            if word.split("/")[0] in FOLDERS and "/" in word and "=" not in word:
                assert Path(word).exists(), f"{name(page)}: {' '.join(words)}: no {word}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {words[1] for words in commands(page) if words[0] == "make"}
    named |= {span.split()[1] for span in code_spans(page) if re.match(r"make [a-z]", span)}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_command_hides_outside_of_a_fence(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= LANGUAGES
    assert re.findall(r"^\s*(?:\$ )?(?:pea|python -m|ray job|accelerate) .*$", prose(page), re.MULTILINE) == []


def quoted(text: str) -> Iterator[str]:
    """Commands between backticks."""
    yield from (" ".join(span.split()) for span in re.findall(r"`(pea [a-z][^`]*|python -m [^`]+)`", text))


@functools.cache
def problem_of(command: str) -> str:
    """What is wrong with a command that may leave out its arguments; empty: nothing."""
    words = [word.strip("(),;") for word in command.split()]
    if words[0] == "python":
        return "" if importlib.util.find_spec(words[2]) else f"no module {words[2]}"
    if words[1] not in cli.COMMANDS:
        return f"no command {words[1]}"
    parser, rest = _below(cli.build_parser([words[1]]), words[1]), words[2:]
    if words[1] in ("inspect", "data") and rest and rest[0].islower():
        parser, rest = _below(parser, rest[0]), rest[1:]
    if parser is None:
        return "no such subcommand"
    known = {option for action in parser._actions for option in action.option_strings}
    unknown = [word for word in rest if re.match(r"--[a-z]", word) and word.split("=")[0] not in known]
    return f"unknown {unknown}" if unknown else ""


def _below(parser: argparse.ArgumentParser | None, command: str) -> argparse.ArgumentParser | None:
    for action in parser._actions if parser else ():
        if isinstance(action, argparse._SubParsersAction):
            return action.choices.get(command)
    return None


@pytest.mark.parametrize("folder", ["pea", "stages", "data_tools", "docs"])
def test_commands_between_backticks_exist(folder: str) -> None:
    texts = {path: path.read_text("utf-8") for path in (ROOT / folder).rglob("*.py")}
    texts |= {page: prose(page) for page in PAGES} if folder == "docs" else {}
    wrong = {(name(path), each): problem_of(each) for path, text in texts.items() for each in quoted(text)}
    assert {where: problem for where, problem in wrong.items() if problem} == {}


def _strings(path: Path) -> Iterator[str]:
    """Every text of a module, f-strings and texts in several pieces as one, with ``{}`` for what is put in."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(each.value) if isinstance(each, ast.Constant) else "{}" for each in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("folder", ["pea", "stages", "data_tools"])
def test_commands_of_messages_exist(folder: str) -> None:
    """Also those in pieces that stand on several lines, and those whose words are put in."""
    texts = {path: list(_strings(path)) for path in (ROOT / folder).rglob("*.py")}
    found = {(name(path), each) for path, strings in texts.items() for text in strings for each in quoted(text)}
    assert {where: problem for where in found if (problem := problem_of(where[1]))} == {}
    assert folder != "pea" or {"pea cache", "pea inspect check --repair"} <= {each for _, each in found}
    words = {match for strings in texts.values() for text in strings for match in re.findall(r"\bpea ([a-z]+)", text)}
    assert words - set(cli.COMMANDS) <= {"data"}, "a command that is quoted in no backticks"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_examples_import_what_exists(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("pea"):
                    module = importlib.import_module(str(node.module))
                    assert all(hasattr(module, each.name) for each in node.names)


def test_a_wrong_command_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\npea cache --config \\\n  configs/demo.yaml cache.seed=1  # remark\n```\n")
    [words] = commands(page)
    assert words == ["pea", "cache", "--config", "configs/demo.yaml", "cache.seed=1"]
    arguments = parsed(words, monkeypatch)
    assert arguments is not None and arguments.overrides == ["cache.seed=1"]
    for wrong in (["pea", "cash"], ["pea", "cache", "--config", "FILE", "--nonsense"]):
        with pytest.raises(SystemExit):
            parsed(wrong, monkeypatch)
    for command in ("pea cash", "pea inspect ls --nonsense", "pea inspect look", "python -m stages.nonsense"):
        assert problem_of(command)
