"""What is in a corpus, found by reading all of it as the cache will: counts, sizes, languages, what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from PIL import Image

from pea.corpus.places import Tar, location_of
from pea.corpus.rules import ReadingRules, TextSource
from pea.corpus.samples import Rejected, Sample, read_tar
from pea.corpus.tars import TarIdentity, tar_identity
from pea.corpus.texts import read_text_part, text_parts
from pea.errors import CorpusError

_LENGTHS = (10, 20, 50, 100, 200, 500)
_SIDES = (256, 512, 768, 1024, 1536, 2048)


@dataclass
class CorpusFacts:
    """Counts of some tars; ``seen == usable + sum(dropped)``."""

    num_tars: int = 0
    num_bytes: int = 0
    seen: int = 0
    usable: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    named: list[str] = field(default_factory=list)
    """Some samples that are left out, with their reason."""
    damaged: list[str] = field(default_factory=list)
    """Tars that cannot be trusted, and why."""
    languages: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, Counter[str]] = field(default_factory=dict)
    """Language -> range of characters -> captions."""
    shorter_sides: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(H, W) in px -> images."""
    identities: list[TarIdentity] = field(default_factory=list)


_MAX_NAMED = 20


def look_at_tar(
    tar: Tar,
    facts: CorpusFacts,
    captions: Mapping[str, str],
    rules: ReadingRules,
    on_image: Callable[[str, Image.Image, Mapping[str, str]], object] = lambda *_: None,
) -> None:
    """Add what is in a tar; one that is damaged is noted, and what is good of it counts.

    ``on_image``: is given the id, image and captions of each usable sample.
    """
    facts.num_tars += 1
    try:
        for item in read_tar(tar, captions, rules=rules):
            facts.seen += 1
            if isinstance(item, Sample):
                _count(item, facts)
                on_image(item.id, item.image, item.captions)
                continue
            _leave_out(item, facts)
        facts.identities.append(tar_identity(tar))
        facts.num_bytes += location_of(tar).status().size_bytes
    except CorpusError as error:
        facts.damaged.append(str(error))


def look_at_texts(source: TextSource, facts: CorpusFacts) -> None:
    """Add what is in tables of texts; ``num_tars``: parts, ``num_bytes``: of their keys and captions.

    Raises:
        CorpusError: a table cannot be read, or lacks a column.
    """
    for part, identity in text_parts(source):
        facts.num_tars += 1
        facts.num_bytes += identity.size_bytes
        for item in read_text_part(part):
            facts.seen += 1
            if isinstance(item, Rejected):
                _leave_out(item, facts)
            else:
                facts.usable += 1
                _count_captions(item.captions, facts)


def _leave_out(item: Rejected, facts: CorpusFacts) -> None:
    facts.dropped[item.reason] += 1
    if len(facts.named) < _MAX_NAMED:
        detail = f": {item.detail}" if item.detail else ""
        facts.named.append(f"{item.tar}/{item.key}: {item.reason}{detail}")


def _count(sample: Sample, facts: CorpusFacts) -> None:
    facts.usable += 1
    width, height = sample.image.size
    facts.sizes[height, width] += 1
    facts.shorter_sides[range_of(min(width, height), _SIDES)] += 1
    _count_captions(sample.captions, facts)


def _count_captions(captions: Mapping[str, str], facts: CorpusFacts) -> None:
    if not captions:
        facts.languages["(none)"] += 1
    for language, text in captions.items():
        facts.languages[language] += 1
        facts.lengths.setdefault(language, Counter())[range_of(len(text), _LENGTHS)] += 1


def range_of(value: int, limits: tuple[int, ...]) -> str:
    """``20 to 49`` of 30."""
    below = max((limit for limit in limits if limit <= value), default=0)
    above = min((limit for limit in limits if limit > value), default=None)
    return f"{below} or more" if above is None else f"{below} to {above - 1}"


def in_order(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Ranges by their lower end."""
    return sorted(counts.items(), key=lambda each: int(each[0].split()[0]))
