"""Run a pipeline: its stages in order, each skipped when nothing that it depends on has changed.

A stage depends on its command, the sections of the configuration that it uses, and the content of the files that it
reads. Their digest is recorded when the stage has succeeded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console

from pea.config import Config, load_config, resolved_yaml
from pea.errors import ConfigError, PeaError


class Stage(BaseModel):
    """One step of a pipeline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    run: list[str]
    """Command; `{config}` is the configuration file, and a leading `pea` this program."""
    uses: list[str] = []
    """Sections of the configuration that decide what the stage does."""
    reads: list[str] = []
    """Files and folders that it reads; `{run_dir}` is the configuration's."""
    writes: list[str] = []
    """Files and folders that it leaves."""


class Pipeline(BaseModel):
    """A pipeline file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: Path
    stages: list[Stage]


class StageFailedError(PeaError, RuntimeError):
    """A stage exited with an error; it has said why."""


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
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ConfigError("not a pipeline", where=path, got=" | ".join(problems), problems=problems) from error


def run_pipeline(pipeline: Pipeline, overrides: list[str], console: Console, *, force: bool = False) -> None:
    """Run or skip each stage in order.

    Raises:
        StageFailedError: a stage failed; those after it are not run.
    """
    config = load_config(pipeline.config, overrides)
    for number, stage in enumerate(pipeline.stages, 1):
        title = f"[bold]{number}/{len(pipeline.stages)} {stage.name}[/bold]"
        record = config.run_dir / "state" / f"{stage.name}.json"
        reason = "forced" if force else _reason_to_run(stage, config, record)
        if reason is None:
            console.print(f"{title}: unchanged, skipped ({json.loads(record.read_text())['seconds']:.0f} s saved)")
            continue
        console.print(f"{title}: {reason}")
        started = time.monotonic()
        command = _command(stage, pipeline.config, overrides)
        code = subprocess.run(command, check=False).returncode
        if code != 0:
            raise StageFailedError(
                f"stage {stage.name!r} failed with exit code {code}",
                where=" ".join(stage.run),
                remedy="The line above says why; to go on, run the same command again.",
            )
        _publish(record, {"digest": _digest(stage, config), "seconds": time.monotonic() - started})


def _command(stage: Stage, config_path: Path, overrides: list[str]) -> list[str]:
    words = [word.format(config=config_path) for word in stage.run]
    if words[0] == "pea":
        return [sys.executable, "-m", "stages.cli", *words[1:], *overrides]
    if words[0] == "python":
        return [sys.executable, *words[1:]]
    return words


def _reason_to_run(stage: Stage, config: Config, record: Path) -> str | None:
    if not record.exists():
        return "not run yet"
    missing = [path for path in _paths(stage.writes, config) if not path.exists()]
    if missing:
        return f"{missing[0]} is missing"
    previous, current = json.loads(record.read_text())["digest"], _digest(stage, config)
    changed = [name for name in current if previous.get(name) != current[name]]
    return f"{', '.join(changed)} changed" if changed else None


def _digest(stage: Stage, config: Config) -> dict[str, str]:
    """Name of each thing that the stage depends on -> its digest."""
    sections = yaml.safe_load(resolved_yaml(config))
    digests = {"command": _sha256(json.dumps(stage.run))}
    digests |= {f"{name} settings": _sha256(json.dumps(sections[name], sort_keys=True)) for name in stage.uses}
    return digests | {str(path): _content(path) for path in _paths(stage.reads, config)}


def _paths(templates: list[str], config: Config) -> list[Path]:
    return [Path(template.format(run_dir=config.run_dir)) for template in templates]


def _content(path: Path) -> str:
    """Digest of a file, or of every file below a folder with its relative name."""
    if not path.exists():
        return "absent"
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(str(file.relative_to(path)).encode() + b"\0")
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _publish(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=2))
    os.replace(temporary, path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`pea run PIPELINE [--force] [section.key=value ...]`."""
    parser.add_argument("pipeline", type=Path, help="the pipeline's YAML file")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="passed on to every stage")
    parser.add_argument("--config", type=Path, help="use this configuration instead of the pipeline's own")
    parser.add_argument("--force", action="store_true", help="run every stage, changed or not")
    parser.add_argument("--dry-run", action="store_true", help="say what would run and why, and stop")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run the pipeline that the command line names."""
    console = Console()
    pipeline = load_pipeline(arguments.pipeline)
    if arguments.config:
        pipeline = pipeline.model_copy(update={"config": arguments.config})
    if arguments.dry_run:
        config = load_config(pipeline.config, arguments.overrides)
        for stage in pipeline.stages:
            record = config.run_dir / "state" / f"{stage.name}.json"
            reason = _reason_to_run(stage, config, record)
            console.print(f"{stage.name}: {reason or 'unchanged, would be skipped'}")
        return 0
    run_pipeline(pipeline, arguments.overrides, console, force=arguments.force)
    return 0
