"""The command line: help, overrides, one-line errors, exit codes, and what it does not import."""

from __future__ import annotations

import errno
import importlib
import os
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
from safetensors import SafetensorError

from pea import __version__
from pea.config import load_config
from pea.errors import CacheError, PeaError
from stages import __main__ as entry
from stages import cache_teacher, cli, completion
from stages.cli import COMMANDS, main
from stages.command import common

ROOT = Path(__file__).parents[2]
CONFIG = "configs/demo.yaml"
HEAVY = {"torch", "ray", "diffusers", "transformers", "accelerate", "matplotlib", "zarr", "tensorstore"}


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_a_module(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: pea {name} ")
    assert COMMANDS[name].help[1:] in " ".join(shown.split())
    module = importlib.import_module(COMMANDS[name].module)
    needed = ("add_arguments", "run_arguments") if COMMANDS[name].own_arguments else ("run",)
    assert all(hasattr(module, attribute) for attribute in needed)


def test_the_guides_name_every_command_and_the_readme_those_of_a_first_day() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    guides = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/guides").glob("*.md"))
    assert [name for name in COMMANDS if f"pea {name}" not in readme + guides] == []
    first = ("data", "init", "plan", "cache", "train", "eval", "report", "generate", "app", "push", "convert")
    assert [name for name in first if f"pea {name}" not in readme] == []


def test_help_of_pea_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert re.findall(r"^    (\w+)(?: |$)", shown, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.own_arguments] + ["cache"])
def test_dry_run_prints_a_configuration_that_can_be_read_back(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [f"run_dir={tmp_path / 'run'}", "train.batch_size=7"]
    assert main([name, "--config", CONFIG, "--dry-run", *overrides]) == 0
    copy = tmp_path / "copy.yaml"
    copy.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_config(copy) == load_config(CONFIG, overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cache.sed=1", "did you mean cache.seed?"),
        ("train.batch_size=many", "train.batch_size"),
        ("nonsense", "nonsense"),
    ],
)
def test_wrong_override_is_one_line(override: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "--config", CONFIG, "--dry-run", override]) == common.EXIT_ERROR
    error = capsys.readouterr().err
    assert error.startswith("pea: error: ")
    assert message in error
    assert error.count("\n") == 1


_WITHOUT_CONFIG = (
    *("init", "run", "sweep", "search", "generate", "app", "push", "convert", "import", "inspect", "data"),
    *("rate", "schema", "completion"),
)
"""Commands that take none, or need more words beside it."""


@pytest.mark.parametrize(
    "words",
    [[name] for name in COMMANDS if name not in _WITHOUT_CONFIG]
    + [
        ["run", "pipeline.yaml"],
        ["sweep", "methods"],
        ["search", "s.yaml"],
        ["generate", "cat"],
        ["inspect", "verify"],
        ["rate", "page"],
    ],
)
def test_no_command_forgets_one_of_several_configurations(words: list[str]) -> None:
    files = [Path("a.yaml"), Path("b.yaml")]
    arguments = cli.parse([*words, *(word for file in files for word in ("--config", str(file)))])
    assert arguments.config == files


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0 and capsys.readouterr().out == f"pea-cache {__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == __version__


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["trian"], "train"),
        (["evaluate"], "eval"),
        (["cache", "--extnd", "--config", CONFIG], "--extend"),
        (["cache", "--confg=x", "--config", CONFIG], "--config"),
        (["inspect", "chek", "CACHE"], "check"),
        (["inspect", "check", "CACHE", "--repiar"], "--repair"),
        (["plan", "--config", CONFIG, "--preset", "sdlx"], "sdxl"),
        (["train", "--confg", CONFIG], "--config"),
        (["train", CONFIG, "train.steps=3"], f"--config {CONFIG}"),
        (["data", "pack", "photos", "--ot", "corpora"], "--out"),
        (["data", "captions", "a.csv", "--out", "o", "--corpora", "c"], "--corpus"),
    ],
)
def test_what_is_misspelt_is_said_with_what_it_may_mean(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.parse(words)
    assert stopped.value.code == 2 and f"(did you mean {meant}?)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["generate", "--adapter", "A"], ["push", "A"], ["convert", "--out", "O"]],
    ids=lambda words: words[0],
)
def test_an_encoder_takes_no_word_that_follows(words: list[str]) -> None:
    parsed = cli.parse([*words, "--encoder", "B", "--encoder", "C", "org/name"])
    assert parsed.encoder == ["B", "C"]
    assert "org/name" in str(parsed.words if words[0] == "generate" else vars(parsed))


def test_only_an_option_of_that_command_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse(["inspect", "ls", "CACHE", "--repiar"])
    said = capsys.readouterr().err
    assert "--repiar" in said and "did you mean" not in said


@pytest.mark.parametrize(
    "words",
    [["plan", "--config", CONFIG, "--force"], ["train", "--config", CONFIG, "--gpu", "2"], ["data", "pcok2024"]],
    ids=lambda words: words[-1],
)
def test_a_word_that_is_only_a_little_alike_is_not_meant(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.parse(words)
    assert stopped.value.code == 2 and "did you mean" not in capsys.readouterr().err


def test_a_module_says_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cache_teacher.main(["--config", CONFIG, "--extnd"])
    assert "(did you mean --extend?)" in capsys.readouterr().err


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_knows_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in [*COMMANDS, "extend", "repair", "num-images"])


def test_bash_reads_its_script(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    ask = 'COMP_WORDS=(pea tra); COMP_CWORD=1; _shtab_pea; echo "${COMPREPLY[@]}"'
    script = f"{capsys.readouterr().out}\n{ask}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "train\n", done.stderr


@pytest.mark.parametrize(
    "words",
    [["train", "--config", "no/such.yaml"], ["report", "--config", "no/such.yaml"], ["init", "--out", "no/such.yaml"]],
    ids=" ".join,
)
def test_a_person_who_waits_gets_a_first_sign(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        assert main(words) == 2
        assert (f"pea {words[0]}: loading libraries ..." in capsys.readouterr().err) == terminal


def test_missing_configuration_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "no/such.yaml"]) == 2
    assert capsys.readouterr().err == (
        "pea: error: no/such.yaml: cannot read the configuration; "
        "got [Errno 2] No such file or directory: 'no/such.yaml'\n"
    )


def _raise(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (CacheError("what", where="there", remedy="Do this."), 2, "pea: error: there: what. Do this.\n"),
        (KeyboardInterrupt(), 130, "pea: interrupted; to go on, run the same command\n"),
    ],
)
def test_errors_become_one_line_and_a_code(
    error: BaseException, code: int, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert common.guarded(lambda: _raise(error)) == code
    assert capsys.readouterr().err == shown


def test_an_interruption_while_the_command_line_is_imported_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "stages.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "stages.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert entry.main() == 130
    assert capsys.readouterr().err == "pea: interrupted\n"


def test_a_warning_is_one_line_without_our_code(capsys: pytest.CaptureFixture[str]) -> None:
    line = ("its UNet is\nanother", UserWarning, "pea/evaluation/base_model.py", 31)
    former = warnings.formatwarning(*line)
    assert common.guarded(lambda: print(warnings.formatwarning(*line), end="") or 0) == 0
    assert capsys.readouterr().out == "pea: warning: its UNet is\\nanother\n"
    assert warnings.formatwarning(*line) == former, "who uses the library sees warnings as ever"


def test_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert common.guarded(lambda: _raise(OSError(errno.ENOSPC, "No space left on device", "x"))) == 2
    assert capsys.readouterr().err.startswith("pea: error: the disk is full: ")


@pytest.mark.parametrize("error", [FileNotFoundError("a bug"), TypeError("a bug"), RecursionError("a bug")])
def test_bugs_keep_their_traceback_and_are_no_finding(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 would say that damage was found."""
    assert common.guarded(lambda: _raise(error)) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said and "please report" in said


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.ENAMETOOLONG, errno.EIO, errno.EMFILE, errno.ELOOP])
def test_what_the_system_refuses_is_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(number, os.strerror(number), "runs/a\nb")
    assert common.guarded(lambda: _raise(error)) == 2
    assert capsys.readouterr().err == f"pea: error: runs/a\\nb: {os.strerror(number)}\n"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_where_this_user_may_not_write_it_says_what_to_do(
    number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEA_WORK_DIR", "/home/me/.cache/pea-cache")
    copies = "Copies of what is in buckets go there: let PEA_WORK_DIR name a folder that this user may write to."
    for place, remedy in {
        "runs": "This user may not write or read there: give another place, or the right to it.",
        "/home/me": copies,
        "/home/me/.cache/pea-cache/runs": copies,
    }.items():
        error = OSError(number, os.strerror(number), place)
        assert common.guarded(lambda error=error: _raise(error)) == 2  # type: ignore[misc]
        assert capsys.readouterr().err == f"pea: error: {place}: {os.strerror(number)}. {remedy}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('I/O error: No space left on device (os error 28) at path "a/b"', "the disk is full: a/b: No space left on"),
        ("I/O error: Input/output error (os error 5)", "the system: Input/output error\n"),
    ],
)
def test_so_is_what_it_refuses_a_library_in_rust(text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert common.guarded(lambda: _raise(SafetensorError(f"Error while serializing: {text}"))) == 2
    assert capsys.readouterr().err.startswith(f"pea: error: {said}")


@pytest.mark.slow
@pytest.mark.parametrize("output", ["/dev/full", "closed"])
def test_output_that_cannot_be_written_is_an_error(output: str) -> None:
    script = "import sys; from stages.command.common import guarded\nsys.exit(guarded(lambda: print('x' * 100) or 0))"
    redirection = ">&-" if output == "closed" else f"> {output}"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "$SCRIPT" {redirection}'], cwd=ROOT, check=False, text=True,
        env={"SCRIPT": script, "PATH": "/usr/bin:/bin"}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == (0 if output == "closed" else 2), "nobody wanted the output, or it could not be kept"
    assert done.stderr.count("\n") == (output != "closed") and "Traceback" not in done.stderr


def test_an_error_may_bring_its_exit_code() -> None:
    error = PeaError("what")
    error.exit_code = 7  # type: ignore[attr-defined]
    assert common.guarded(lambda: _raise(error)) == 7


def test_only_the_wanted_module_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []
    load = importlib.import_module
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: imported.append(name) or load(name))
    cli.build_parser(["run", "pipeline.yaml"])
    assert imported == ["stages.run"]


def test_help_of_every_command_comes_without_heavy_libraries() -> None:
    """In one process: what a command has imported is still there when the next one is asked."""
    script = (
        "import sys; from stages.cli import COMMANDS, main\n"
        "for words in [[], *([name] for name in COMMANDS)]:\n"
        "    try: main([*words, '--help'])\n"
        "    except SystemExit: pass\n"
        f"    heavy = {HEAVY!r} & set(sys.modules)\n"
        "    if heavy: sys.exit(f'pea {words} imports {heavy}')\n"
        "print('light')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.endswith("light\n"), done.stderr


def test_a_report_is_written_without_heavy_libraries() -> None:
    script = f"import sys, stages.report; sys.exit(str({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == "set()\n"


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error() -> None:
    script = (
        "import sys; from stages.command.common import guarded\n"
        "sys.exit(guarded(lambda: [print('x' * 1000) for _ in range(10000)] and 0))"
    )
    command = f'{sys.executable} -c "$SCRIPT" | head -n 1'
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env={"SCRIPT": script, "PATH": "/usr/bin:/bin"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "x" * 1000 + "\n"
    assert done.stderr == ""
