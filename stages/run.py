"""Run a pipeline: its stages in order, each skipped when nothing that it depends on, and nothing it left, has changed.

A stage depends on its command, the sections of the configuration that it uses, and the content of what it reads. Their
digests, and those of what it wrote, are recorded in ``run_dir/state`` when the stage has succeeded. So a cache that was
repaired, or lost samples or files, is completed, and what was trained from it is trained again if its rows differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pea.config import Config, load_config
from pea.errors import PeaError
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.durable import write_text
from stages.command.arguments import add_config_option, local_path
from stages.command.console import Console, bold
from stages.command.run_folder import state_of
from stages.pipeline.checks import check_stages
from stages.pipeline.definition import Pipeline, Stage, Words, load_pipeline
from stages.pipeline.digests import ABSENT, Content, Digests


class StageFailedError(PeaError, RuntimeError):
    """A stage ended with an error; it has said why."""

    exit_code = 2


@dataclass
class Runner:
    """A pipeline with its configuration."""

    pipeline: Pipeline
    config: Config
    overrides: list[str]
    console: Console
    force: bool = False

    def __post_init__(self) -> None:
        self._state, self._mirror = state_of(self.config)
        self._digests = Digests(self._state / "digests.json")
        self._words = Words(self.pipeline.config, self.config)
        check_stages(self.pipeline.stages, self.config, self._words)

    def run(self) -> None:
        """Run or skip each stage in order.

        Raises:
            StageFailedError: a stage failed, or what it left is damaged; those after it are not run.
        """
        for number, stage in enumerate(self.pipeline.stages, 1):
            depends_on = self._depends_on(stage)
            reason = self._reason_to_run(stage, depends_on)
            title = f"{number}/{len(self.pipeline.stages)} {stage.name}"
            if reason is None:
                self.console.print(bold(title, ": unchanged, skipped"))
                continue
            self.console.print(bold(title, f": {reason}"))
            started = time.monotonic()
            self._execute(stage)
            seconds = round(time.monotonic() - started, 3)
            self._record(stage, {"digest": depends_on, "written": self._left(stage), "seconds": seconds})

    def explain(self) -> None:
        """Say what would run, and why."""
        would_run: list[str] = []
        for stage in self.pipeline.stages:
            reason = self._reason_to_run(stage, self._depends_on(stage))
            if reason is None and would_run:
                self.console.print(f"{stage.name}: unchanged, unless {', '.join(would_run)} leaves something else")
                continue
            self.console.print(f"{stage.name}: {reason or 'unchanged, would be skipped'}")
            would_run += [stage.name] if reason else []

    def _reason_to_run(self, stage: Stage, depends_on: dict[str, str]) -> str | None:
        """Why a stage must run; None if it need not."""
        if self.force:
            return "forced"
        try:
            previous = json.loads(self._record_path(stage).read_text(encoding="utf-8"))
            before, left = dict(previous["digest"]), dict(previous["written"])
        except (OSError, ValueError, KeyError, TypeError):
            return "not run yet"
        now = self._written(stage)
        for name, content in now.items():
            if content.digest == ABSENT != left.get(name):
                return f"{name} is missing"
            if content.problems:
                return f"{name} is damaged"
        after = {name: content.digest for name, content in now.items()}
        changed = [name for name in {**before, **depends_on} if before.get(name) != depends_on.get(name)]
        changed += [name for name in {**left, **after} if left.get(name) != after.get(name)]
        return f"{', '.join(changed)} changed" if changed else None

    def _depends_on(self, stage: Stage) -> dict[str, str]:
        """Name of each thing that the stage depends on -> its digest."""
        settings = self.config.model_dump(mode="json")
        settings["cache"].pop("run")
        digests = {"its command": sha256_text(canonical_json(stage.run))}
        digests |= {f"{name} settings": sha256_text(canonical_json(settings[name])) for name in stage.uses}
        patterns = zip(self._words.fill(stage.reads), self._words.fill_patterns(stage.reads), strict=True)
        return digests | {name: self._digests.of(pattern).digest for name, pattern in patterns}

    def _written(self, stage: Stage) -> dict[str, Content]:
        """What the stage leaves, as it is now."""
        patterns = zip(self._words.fill(stage.writes), self._words.fill_patterns(stage.writes), strict=True)
        return {name: self._digests.of(pattern) for name, pattern in patterns}

    def _left(self, stage: Stage) -> dict[str, str]:
        """The digests of what a stage that ended well has left."""
        found = self._written(stage)
        for name, content in found.items():
            if content.problems:
                raise StageFailedError(
                    f"stage {stage.name!r} ended well, but what it should leave is damaged",
                    where=name,
                    got="; ".join(content.problems),
                    remedy=f"Run `pea inspect check --repair {name}` and then the same command again.",
                )
            if content.digest == ABSENT:
                self.console.print(f"  {name}: was not written")
        return {name: content.digest for name, content in found.items()}

    def _record(self, stage: Stage, record: dict[str, Any]) -> None:
        write_text(self._record_path(stage), json.dumps(record, indent=2) + "\n")
        if self._mirror:
            self._mirror.publish()

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
        words = self._words.fill_command(stage.run)
        if words[0] == "pea":
            return [sys.executable, "-m", "stages.cli", *words[1:], *self.overrides]
        return [sys.executable, *words[1:]] if words[0] == "python" else words

    def _record_path(self, stage: Stage) -> Path:
        return self._state / f"{stage.name}.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea run``."""
    parser.add_argument("pipeline", type=local_path, metavar="PIPELINE", help="the pipeline's YAML file")
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
