"""Run a pipeline: its stages in order, each skipped when nothing that it depends on has changed.

A stage depends on its command, the sections of the configuration that it uses, and the content of what it reads. Their
digests are recorded in ``run_dir/state`` when the stage has succeeded.
"""

from __future__ import annotations

import argparse
import glob
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pea.config import Config, load_config
from pea.config.placeholders import fill_placeholders
from pea.errors import ConfigError, PeaError
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.durable import write_text
from stages.command.arguments import add_config_option
from stages.command.console import Console, bold
from stages.command.digests import Digests


class Stage(BaseModel):
    """One step of a pipeline. In every text ``{config}`` is the configuration's file and ``{run_dir}`` its run_dir.

    Any other word in braces is refused; other braces stay as they are. Of several files, a text with ``{config}`` is
    repeated for each, and in a command so is the option before it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    run: list[str]
    """Command; a leading ``pea`` is this program, a leading ``python`` this interpreter."""
    uses: list[str] = []
    """Sections of the configuration that decide what the stage does; ``cache.run`` never counts."""
    reads: list[str] = []
    """Files, folders and glob patterns that it reads."""
    writes: list[str] = []
    """Files and folders that it leaves."""


def _as_several(given: Any) -> Any:
    return given if isinstance(given, list | tuple) else [given]


class Pipeline(BaseModel):
    """A pipeline file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: Annotated[tuple[Path, ...], BeforeValidator(_as_several), Field(min_length=1)]
    """A file, or several, of which later ones replace settings of earlier ones."""
    stages: list[Stage]


class StageFailedError(PeaError, RuntimeError):
    """A stage ended with an error; it has said why."""

    exit_code = 2


def load_pipeline(path: Path) -> Pipeline:
    """Read a pipeline file.

    Raises:
        ConfigError: it cannot be read, or is not a pipeline.
    """
    try:
        return Pipeline.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError("cannot read the pipeline", where=path, got=str(error).splitlines()[0]) from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise ConfigError("not a pipeline", where=path, got=" | ".join(problems), problems=problems) from error


@dataclass
class Runner:
    """A pipeline with its configuration."""

    pipeline: Pipeline
    config: Config
    overrides: list[str]
    console: Console
    force: bool = False

    def __post_init__(self) -> None:
        self._state = self.config.run_dir / "state"
        self._digests = Digests(self._state / "digests.json")
        for stage in self.pipeline.stages:
            try:
                self._filled([*stage.run, *stage.reads, *stage.writes])
            except ValueError as error:
                raise ConfigError("not a pipeline", where=f"stage {stage.name}", got=error) from None

    def run(self) -> None:
        """Run or skip each stage in order.

        Raises:
            StageFailedError: a stage failed; those after it are not run.
        """
        for number, stage in enumerate(self.pipeline.stages, 1):
            digest = self.digest(stage)
            reason = self.reason_to_run(stage, digest)
            title = f"{number}/{len(self.pipeline.stages)} {stage.name}"
            if reason is None:
                self.console.print(bold(title, ": unchanged, skipped"))
                continue
            self.console.print(bold(title, f": {reason}"))
            started = time.monotonic()
            self._execute(stage)
            record = {"digest": digest, "seconds": round(time.monotonic() - started, 3)}
            write_text(self._record_path(stage), json.dumps(record, indent=2) + "\n")

    def explain(self) -> None:
        """Say what would run, and why."""
        for stage in self.pipeline.stages:
            reason = self.reason_to_run(stage, self.digest(stage))
            self.console.print(f"{stage.name}: {reason or 'unchanged, would be skipped'}")

    def reason_to_run(self, stage: Stage, digest: dict[str, str]) -> str | None:
        """Why a stage must run; None if it need not."""
        if self.force:
            return "forced"
        try:
            previous = json.loads(self._record_path(stage).read_text(encoding="utf-8"))["digest"]
        except (OSError, ValueError, KeyError, TypeError):
            return "not run yet"
        missing = [path for path in map(Path, self._filled(stage.writes)) if not path.exists()]
        if missing:
            return f"{missing[0]} is missing"
        changed = [name for name in {**previous, **digest} if previous.get(name) != digest.get(name)]
        return f"{', '.join(changed)} changed" if changed else None

    def digest(self, stage: Stage) -> dict[str, str]:
        """Name of each thing that the stage depends on -> its digest."""
        settings = self.config.model_dump(mode="json")
        settings["cache"].pop("run")
        unknown = [name for name in stage.uses if name not in settings]
        if unknown:
            raise ConfigError("no such section", where=f"stage {stage.name}: uses", got=", ".join(unknown))
        digests = {"its command": sha256_text(canonical_json(stage.run))}
        digests |= {f"{name} settings": sha256_text(canonical_json(settings[name])) for name in stage.uses}
        patterns = self._filled(stage.reads, as_pattern=True)
        return digests | {
            name: self._digests.of(pattern) for name, pattern in zip(self._filled(stage.reads), patterns, strict=True)
        }

    def _execute(self, stage: Stage) -> None:
        code = subprocess.run(self.command(stage), check=False).returncode
        if code == 0:
            return
        error = StageFailedError(
            f"stage {stage.name!r} failed with exit code {code}",
            remedy="The lines above say why; to go on, run the same command again.",
        )
        error.exit_code = code if code > 0 else 128 - code
        raise error

    def command(self, stage: Stage) -> list[str]:
        """What is executed for a stage."""
        words: list[str] = []
        for option, text in zip(["", *stage.run], stage.run, strict=False):
            first, *others = self._filled([text])
            words.append(first)
            for other in others:
                words += [option, other] if text == "{config}" else [other]
        if words[0] == "pea":
            return [sys.executable, "-m", "stages.cli", *words[1:], *self.overrides]
        return [sys.executable, *words[1:]] if words[0] == "python" else words

    def _filled(self, texts: list[str], *, as_pattern: bool = False) -> list[str]:
        plain = glob.escape if as_pattern else str
        run_dir, filled = plain(str(self.config.run_dir)), []
        for text in texts:
            files = self.pipeline.config if "{config}" in text else self.pipeline.config[:1]
            filled += [fill_placeholders(text, {"config": plain(str(file)), "run_dir": run_dir}) for file in files]
        return filled

    def _record_path(self, stage: Stage) -> Path:
        return self._state / f"{stage.name}.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea run``."""
    parser.add_argument("pipeline", type=Path, metavar="PIPELINE", help="the pipeline's YAML file")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="passed on to every `pea` stage")
    add_config_option(parser, "use this setup instead of the pipeline's own", required=False)
    parser.add_argument("--force", action="store_true", help="run every stage, changed or not")
    parser.add_argument("--dry-run", action="store_true", help="say what would run and why, and stop")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run the pipeline that the command line names."""
    pipeline = load_pipeline(arguments.pipeline)
    if arguments.config:
        pipeline = pipeline.model_copy(update={"config": tuple(arguments.config)})
    config = load_config(pipeline.config, arguments.overrides)
    runner = Runner(pipeline, config, arguments.overrides, Console(), arguments.force)
    if arguments.dry_run:
        runner.explain()
    else:
        runner.run()
    return 0
