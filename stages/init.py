"""Write the configuration of a new setup, checked against its models and its corpus, with what it will cost.

    pea init --base checkpoints/sd15 --encoder checkpoints/chinese-clip --language zh --parallel corpora/parallel
    pea init --base org/name@revision --encoder checkpoints/xlmr --language ja --language ko --parallel laion.tar

The settings are those of the family's file in configs/; words of the form `section.key=value` replace them. At a
terminal, what is not given is asked for. Nothing that exists is overwritten. Lines that begin with `unchecked` say what
could not be looked at.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from data_tools.prompt_sets import copy_sets, sets_for
from pea.config import Config, load_config
from pea.config.inputs import with_inputs_fetched
from pea.config.yaml_text import merge_overrides
from pea.errors import ConfigError, CorpusError
from pea.storage.durable import atomic_write, make_folder
from stages.command.arguments import local_path
from stages.command.console import Console
from stages.command.corpus_places import parallel_source, tar_patterns
from stages.command.families import (
    FAMILIES,
    Base,
    buckets_for,
    family_settings,
    fit_to_machine,
    gpus_here,
    look_at_base,
    sees_images,
)
from stages.plan import add_rate_arguments, asked_of

_QUESTIONS = {
    "base": "Base model (folder in diffusers' layout, or org/name@revision)",
    "encoder": "Text encoder of the new language (folder, or org/name@revision)",
    "language": "Language of the captions, such as zh (several: with commas)",
    "parallel": "Tars with images and captions in English and that language (folder, pattern), or a table of captions",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea init``."""
    parser.add_argument("--base", metavar="MODEL", help="folder of the English model, or org/name@revision")
    parser.add_argument(
        "--encoder", action="append", metavar="MODEL", help="folder of the native text encoder, or org/name@revision"
    )
    parser.add_argument("--language", action="append", metavar="CODE", help="language of the captions, such as zh")
    parser.add_argument(
        "--parallel",
        action="append",
        metavar="TARS",
        help="folder or pattern of tars with English and native captions, or a table of such captions without images",
    )
    parser.add_argument(
        "--culture", action="append", metavar="TARS", help="folder or pattern of tars with native captions only"
    )
    parser.add_argument(
        "--prompts",
        action="append",
        type=local_path,
        metavar="FILE",
        help="prompts to score the adapter with (JSONL; default: `pea data prompts`, where it has the language)",
    )
    parser.add_argument("--run-dir", metavar="DIR", help="folder of everything that is made (default: runs/BASE-CODE)")
    parser.add_argument(
        "--out", type=local_path, default=Path("pea.yaml"), metavar="FILE", help="file to write (default: pea.yaml)"
    )
    parser.add_argument("--family", choices=FAMILIES, help="whose settings, where the base model is not there yet")
    add_rate_arguments(
        parser, gpus=None, gpus_help="GPUs to write it for (default: those of this machine, or of the family's file)"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that replace the family's")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Ask, check, write, and say what it will cost.

    Raises:
        ConfigError: too little is known, the file exists already or cannot be written, or settings are wrong.
        CheckpointError: a model that is there cannot be used.
    """
    if arguments.out.exists():
        raise ConfigError(
            "the file exists already", where=arguments.out, remedy="Give another name with --out, or move it away."
        )
    _need_place_for(arguments.out)
    ask(arguments)
    if arguments.gpus is None:
        arguments.gpus = gpus_here()
    base = look_at_base(arguments.base, arguments.family)
    text = configuration_text(arguments, base)
    config, unchecked = check(text, arguments, base)
    names = [] if arguments.prompts else sets_for(config.student.languages)
    if names:
        copy_sets(names, shipped_prompts(arguments))
        unchecked = [line for line in unchecked if not line.startswith("evaluate.prompts")]
    make_folder(arguments.out.parent)
    try:
        atomic_write(arguments.out, text.encode(), replace=False)
    except FileExistsError:
        raise ConfigError("the file exists already", where=arguments.out, got="it was made just now") from None
    console = Console()
    for line in unchecked + _costs(config, arguments, base, console):
        console.print(f"  unchecked: {line}", soft_wrap=True)
    from stages.command.early_look import look_at_corpora  # loads Pillow, as above

    if names:
        files = ", ".join(f"{name}.jsonl" for name in names)
        console.print(f"  prompts to score with: {files} in {shipped_prompts(arguments)}", soft_wrap=True)
    doubts = look_at_corpora(config, unchecked)
    for line in doubts:
        console.print(f"  look at this: {line}", soft_wrap=True)
    after = "after what is said above, " if doubts else ""
    console.print(f"{arguments.out} is written; next: {after}pea cache --config {arguments.out}", soft_wrap=True)
    return 0


def _need_place_for(file: Path) -> None:
    """Before anything is spent.

    Raises:
        ConfigError: the file cannot be written.
    """
    folder = next(each for each in file.absolute().parents if each.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            "nothing may be written there", where=folder, remedy="Give another place with --out, or run it elsewhere."
        )


def ask(arguments: argparse.Namespace) -> None:
    """Fill in what was not given, at a terminal.

    Raises:
        ConfigError: there is no terminal, or no answer.
    """
    missing = [name for name in _QUESTIONS if not getattr(arguments, name)]
    if missing and sys.stdin.isatty():
        for name in missing:
            answer = input(f"{_QUESTIONS[name]}: ").strip()
            setattr(arguments, name, answer if name == "base" else [part for part in [answer] if part])
        if "parallel" in missing and not arguments.culture:
            arguments.culture = [
                each for each in [input("Tars with native captions only (may be empty): ").strip()] if each
            ]
        missing = [name for name in _QUESTIONS if not getattr(arguments, name)]
    if missing:
        raise ConfigError(
            "not enough is known to write a configuration",
            expected=", ".join(f"--{name}" for name in missing),
            remedy="Give these, or run the command at a terminal and answer.",
        )


def configuration_text(arguments: argparse.Namespace, base: Base) -> str:
    """The file that is written."""
    raw = family_settings(base.family)
    languages = [part.strip() for word in arguments.language for part in word.split(",") if part.strip()]
    name = Path(arguments.base.split("@")[0]).name or base.family
    raw["run_dir"] = arguments.run_dir or f"runs/{name}-{'-'.join(languages)}"
    raw["teacher"]["checkpoint"] = arguments.base
    raw["corpora"] = {"parallel": parallel_source(arguments.parallel)}
    if arguments.culture:
        raw["corpora"]["culture"] = {"tars": tar_patterns(arguments.culture), "source_language": languages[0]}
    if base.unet is not None and base.vae is not None:
        raw["cache"]["buckets"] = buckets_for(base.unet, base.vae, raw["cache"]["buckets"])
    note = fit_to_machine(raw, arguments.gpus)
    encoders = arguments.encoder
    raw["student"]["encoder"] = encoders[0] if len(encoders) == 1 else encoders
    raw["student"]["language"] = languages[0] if len(languages) == 1 else languages
    evaluate = {name: value for name, value in raw["evaluate"].items() if name not in ("prompts", "clip", "judge")}
    paths = arguments.prompts or [shipped_prompts(arguments) / f"{name}.jsonl" for name in sets_for(languages)]
    if paths:
        evaluate["prompts"] = {path.stem: str(path) for path in paths}
    if clip := next((each for each in encoders if sees_images(each)), None):
        evaluate["clip"] = clip
    raw["evaluate"] = evaluate
    if problems := merge_overrides(raw, arguments.overrides):
        raise ConfigError("settings cannot be read", got=" | ".join(problems), problems=problems)
    head = f"# Written by pea init with the settings of configs/{base.family}.yaml; `pea plan` says what it costs.\n"
    return head + note + yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=110)


def shipped_prompts(arguments: argparse.Namespace) -> Path:
    """Where the package's own prompts go."""
    return Path(arguments.out).parent / "prompts"


def check(text: str, arguments: argparse.Namespace, base: Base) -> tuple[Config, list[str]]:
    """The configuration, and what could not be looked at; nothing is written before all else is sound.

    Raises:
        CheckpointError, ConfigError, EvaluationError: as ``preflight_plan``.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / arguments.out.name
        path.write_text(text, encoding="utf-8")
        config = with_inputs_fetched(load_config(path))
    from stages.command.preflight import preflight_plan  # loads numpy and Pillow, which --help does without

    return config, preflight_plan(config, with_teacher=base.unet is not None)


def _costs(config: Config, arguments: argparse.Namespace, base: Base, console: Console) -> list[str]:
    """Print size, time and steps for this corpus; returns what cannot be said."""
    from pea.costs.plan import make_plan
    from stages.command.plan_tables import show

    try:
        plan = make_plan(config, asked_of(arguments, base.family if base.unet is None else None))
    except (ConfigError, CorpusError) as error:
        return [f"plan: {error}"]
    show(plan, console)
    uses = plan.work.parallel_rows / max(1, plan.num_records)
    steps = " + ".join(f"{phase.steps:,} ({phase.kind})" for phase in plan.work.phases)
    console.print(f"  steps: {steps}; in passes of the UNet, each record is used {uses:,.2f} times", soft_wrap=True)
    return []


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    from stages.command.common import command_main

    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
