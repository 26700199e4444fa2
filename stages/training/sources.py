"""What each corpus gives to a run: counted and said before the first step, and an error where it is nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, islice
from typing import Any

from pea.batches.captions import Captioned, count_captioned
from pea.batches.dataset import TrainingData
from pea.cache import Cache
from pea.cache.totals import totals
from pea.config import Config, TrainConfig
from pea.corpus.corpus_names import CorpusName as Corpus
from pea.errors import CacheError, ConfigError
from stages.command.console import Console
from stages.training.caches import open_cache


def used_corpora(config: Config) -> list[Corpus]:
    """The corpora that some phase of a run reads."""
    phases = config.train.all_phases
    spoken = any(kind == "unet" and train.culture_fraction for kind, train in phases)
    return [name for name in config.corpora.names if name != "culture" or spoken]


def check_captions(config: Config, console: Console) -> dict[str, Any]:
    """Count the samples that have a caption in the student's languages, and say how many have none.

    Returns what a summary says of it: corpus -> counts, of each corpus that the run reads.

    Raises:
        CacheError: a corpus has none of them, a language has none in any corpus, or less than
            `train.min_captioned_fraction` have one.
        IdentityError: a cache is not the one that this configuration describes.
    """
    languages, found = config.student.caption_languages, dict[Corpus, Captioned]()
    for corpus in used_corpora(config):
        cache = open_cache(config, corpus)
        found[corpus] = captioned = count_captioned(cache, languages)
        _check_share(cache, corpus, captioned, config)
        if missing := captioned.num_samples - captioned.num_captioned:
            named = " or ".join(languages)
            console.print(f"{corpus}: {missing:,} of {captioned.num_samples:,} samples have no caption in {named}")
    if silent := [name for name in languages if not any(each.by_language[name] for each in found.values())]:
        raise CacheError(
            f"no sample has a caption in {', '.join(silent)}",
            where=", ".join(str(config.cache_dir(corpus)) for corpus in found),
            remedy="Set student.language to languages of the corpora.",
        )
    return {
        corpus: {"samples": each.num_samples, "with_caption": each.num_captioned, **each.by_language}
        for corpus, each in found.items()
    }


def _check_share(cache: Cache, corpus: Corpus, captioned: Captioned, config: Config) -> None:
    languages, wanted = " or ".join(config.student.caption_languages), config.train.min_captioned_fraction
    share = captioned.num_captioned / max(1, captioned.num_samples)
    if captioned.num_samples and not captioned.num_captioned:
        otherwise = "train without it (train.culture_fraction=0)" if corpus == "culture" else "cache one that has it"
        raise CacheError(
            f"no sample has a caption in {languages}",
            where=cache.directory,
            expected=f"one of {', '.join(totals(cache)['languages']) or 'no languages'}",
            remedy=f"Set student.language to a language of the corpus, or {otherwise}.",
        )
    if share < wanted:
        raise CacheError(
            f"too few samples have a caption in {languages}",
            where=cache.directory,
            expected=f"a share of {wanted:g} (train.min_captioned_fraction)",
            got=f"{share:.4g}, {captioned.num_captioned:,} of {captioned.num_samples:,}",
            remedy="Add captions to the corpus, or lower train.min_captioned_fraction.",
        )


def check_rows(data: TrainingData, train: TrainConfig, num_processes: int) -> None:
    """Make sure that every source with a share gives a row to a phase with the UNet.

    Raises:
        ConfigError: one gives none in all of its steps.
    """
    assert train.steps is not None
    num_batches = train.steps * train.gradient_accumulation_steps * num_processes
    sources = [("parallel", 1 - train.culture_fraction)]
    sources += [("culture", train.culture_fraction)] if data.culture else []
    for place, (name, share) in enumerate(sources):
        if share > 0 and not any(data.num_rows(index)[place] for index in range(num_batches)):
            raise ConfigError(
                f"the {name} corpus gives no row to this phase",
                where="train.culture_fraction",
                expected=f"a share of {share:g} of {num_batches:,} batches of {train.batch_size} rows",
                remedy="Train for more steps, or set the share to 0 or 1.",
            )


def parallel_batches(data: TrainingData, most: int) -> Sequence[int]:
    """Indices of the first batches that have a parallel row."""
    return list(islice((index for index in count() if data.num_rows(index)[0]), most))
