"""What is to be done for each corpus: its tars, its manifest, and the parts that are not finished."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pea.cache import Identity, cache_identity
from pea.cache.cards import MOST_CARDS, digest_of_tars, read_card
from pea.cache.differences import check_extends, check_same, with_former_descriptions, without_new_captions
from pea.cache.identity import TARS, retired_tars, without_newer_fields
from pea.cache.manifest import carry_cards, read_manifest
from pea.cache.publication import newest
from pea.cache.tar_changes import create_or_begin_anew, replace_tar, retire_tar
from pea.config import Config
from pea.corpus.corpus_names import DISTILLED
from pea.corpus.corpus_names import CorpusName as Corpus
from pea.corpus.damaged_tars import as_one_error
from pea.corpus.places import Tar
from pea.corpus.rules import TextSource
from pea.corpus.tars import TarIdentity, expand_tars
from pea.corpus.texts import TextPart, text_parts
from pea.errors import CacheError, CorpusError
from pea.plurals import count_of
from pea.storage import Location
from stages.cluster.caption_facts import CaptionFacts
from stages.cluster.retries import Job
from stages.cluster.session import RaySession
from stages.cluster.tar_facts import TarFacts
from stages.cluster.text_rows import usable_rows
from stages.command.console import Console, bold
from stages.command.progress import StageProgress

_OF_THE_SAME_FILES: set[Corpus] = {"culture", "described"}


@dataclass(frozen=True)
class TarChanges:
    """Tars of caches that are there, by name, or as ``CORPUS/NAME`` where both corpora have the name."""

    replaced: Sequence[str] = ()
    """Made again from the file that is there now."""
    retired: Sequence[str] = ()
    """Taken out for good."""

    def of(self, caches: Mapping[Corpus, Identity]) -> dict[Corpus, TarChanges]:
        """The changes of each corpus.

        Raises:
            CacheError: no cache, or more than one, has a tar of a name.
        """
        if not caches and (self.replaced or self.retired):
            name = [*self.replaced, *self.retired][0]
            raise CacheError("there is no cache yet", got=name, remedy="Fill it with `pea cache`.")
        return {
            corpus: TarChanges(
                _own(self.replaced, corpus, {name: set(found.tars_by_name) for name, found in caches.items()}),
                _own(
                    self.retired,
                    corpus,
                    {name: {*found.tars_by_name, *retired_tars(found)} for name, found in caches.items()},
                ),
            )
            for corpus in caches
        }


def _own(names: Sequence[str], corpus: Corpus, tars: Mapping[Corpus, Collection[str]]) -> tuple[str, ...]:
    """Those of the names that mean a tar of one corpus. ``tars``: those of each corpus."""
    own = []
    for each in dict.fromkeys(names):
        prefix, _, name = each.rpartition("/")
        holders = [holder for holder, known in tars.items() if name in known and prefix in ("", holder)]
        if len(holders) != 1 and set(holders) != _OF_THE_SAME_FILES:
            shown = " or ".join(_shown(sorted(known)) for known in tars.values())
            raise CacheError(
                f"{len(holders)} caches have a tar of that name" if holders else "no such tar in the caches",
                expected=" or ".join(f"{holder}/{name}" for holder in holders) or shown,
                got=each,
                remedy=None if holders else "Add tars with `pea cache --extend`.",
            )
        own += [name] if corpus in holders else []
    return tuple(own)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")


def plan_corpora(
    config: Config,
    corpora: Sequence[Corpus],
    session: RaySession,
    console: Console,
    *,
    extend: bool = False,
    changes: TarChanges = TarChanges(),
) -> dict[Corpus, list[Job]]:
    """Read what is not known of the tars, write or check the manifests, and list what is still to be done.

    All tars of all corpora are read before the first manifest is written.

    Raises:
        IdentityError: a cache was made from something else.
        CorpusError: tars are missing or damaged; each is named.
        CacheError: there is no such tar to change.
        LeaseHeldError: somebody is writing the shard of a tar that is to be changed.
    """
    caches = {name: found for name in corpora if (found := _identity_of(config.cache_dir(name))) is not None}
    own, plans, damaged = changes.of(caches), [], list[CorpusError]()
    for corpus in corpora:
        plan = CorpusPlan(config, corpus, own.get(corpus, TarChanges()), caches.get(corpus))
        plans.append(plan)
        try:
            plan.read_tars(session, console)
        except CorpusError as error:
            damaged.append(error)
    if damaged:
        raise as_one_error(damaged)
    for plan in plans:
        plan.check_changes(extend=extend)
    return {plan.corpus: plan.jobs(console, extend=extend) for plan in plans}


def known_tars(directory: Path | Location) -> frozenset[str]:
    """Names of the tars that a cache was made from, or that were taken out of it; none where there is no cache yet."""
    found = _identity_of(directory)
    return frozenset() if found is None else frozenset({*found.tars_by_name, *retired_tars(found)})


def _identity_of(directory: Path | Location) -> Identity | None:
    place = Location.parse(directory)
    return None if newest(place, "manifest") is None else read_manifest(place).identity


class CorpusPlan:
    """One corpus on its way to jobs."""

    def __init__(self, config: Config, corpus: Corpus, changes: TarChanges, cached: Identity | None) -> None:
        """``cached``: what its cache was made from, where there is one."""
        self.corpus, self._config, self._changes, self._cached = corpus, config, changes, cached
        self._directory = Location.parse(config.cache_dir(corpus))
        source = config.corpora.source(corpus)
        former = () if cached is None else retired_tars(cached)
        self._left_out = {*former, *changes.retired}
        self._texts: TextSource | None = source.text_source
        self._parts: dict[str, tuple[TextPart, TarIdentity]] = {}
        found = [] if self._texts else expand_tars(source.tars)
        self._tars: list[Tar] = [tar for tar in found if tar.name not in self._left_out]
        self._captions = CaptionFacts(config.run_dir / "state")
        self._facts = TarFacts(config.run_dir / "state", source.reading_rules(config.cache).image_extensions)

    def read_tars(self, session: RaySession, console: Console) -> None:
        """Find out what each tar is.

        Raises:
            CorpusError: tars are damaged, there is no sample at all, or too many rows of a table cannot be used.
        """
        if self._texts is not None:
            found = text_parts(self._texts)
            self._parts = {part.name: (part, same) for part, same in found if part.name not in self._left_out}
            parts, most = [part for part, _ in self._parts.values()], self._config.cache.max_dropped_fraction
            said = usable_rows(parts, most, where=", ".join(self._texts.places))
            console.print(bold(self.corpus, f": {said} -> {self._directory}"))
            return
        console.print(bold(self.corpus, f": {count_of(len(self._tars), 'tar')} -> {self._directory}"))
        if missing := self._facts.missing(self._tars):
            with StageProgress(console, f"{self.corpus}, reading the tars", "MB") as progress:
                self._facts.read(missing, session, progress)
        self._tell_tables(console)
        if empty := self._facts.check_samples(self._tars):
            console.print(f"  {count_of(len(empty), 'tar')} without a sample: {', '.join(empty)}")

    def _tell_tables(self, console: Console) -> None:
        """Which tars have no table beside them, where others have one."""
        beside = self._config.corpora.texts_beside(self.corpus)
        without = [] if beside is None else [tar.name for tar in self._tars if not beside[0].has(tar.name)]
        if without:
            console.print(f"  {len(without)} of {len(self._tars)} tars have no caption table: {_shown(without)}")

    def check_changes(self, *, extend: bool) -> None:
        """Make sure that nothing else differs than what is to be changed.

        Raises:
            IdentityError: something does.
            CacheError: a tar that is to be replaced is not there any more.
        """
        changed = {*self._changes.replaced, *self._changes.retired}
        if self._cached is None or not changed:
            return
        wanted = self._identity()
        missing = [name for name in self._changes.replaced if name not in wanted.tars]
        if missing:
            remedy = f"Correct corpora.{self.corpus}.tars, or take it out with `pea cache --retire {missing[0]}`."
            raise CacheError("no tar to replace it with", where=self._directory, got=missing[0], remedy=remedy)
        tars = {**wanted.tars, **{name: tar for name, tar in self._cached.tars.items() if name in changed}}
        same = Identity({**wanted.fields, TARS: [tars[name].entry for name in sorted(tars)]}, wanted.means_same)
        if extend:
            check_extends(self._cached, same, where=self._directory)
        else:
            check_same(self._cached, without_newer_fields(same, self._cached), where=self._directory)

    def jobs(self, console: Console, *, extend: bool) -> list[Job]:
        """Carry the changes out, write or check the manifest, and list what is not finished."""
        for name in self._changes.retired:
            count = retire_tar(self._directory, name)
            console.print(f"  {name} is retired, and {count_of(count, 'sample')} with it")
        for name in self._changes.replaced:
            given_up = replace_tar(self._directory, self._identity().tars[name])
            if given_up is None:
                console.print(f"  {name} is the file that the cache was made from")
            else:
                console.print(f"  {name} is replaced, and {count_of(given_up, 'sample')} made again")
        if self._left_out:
            console.print(f"  retired, and left out: {', '.join(sorted(self._left_out))}")
        cards = self._cards(console)
        cache, anew = create_or_begin_anew(self._directory, self._identity(), extend=extend, cards=cards)
        if cards:
            carry_cards(self._directory, cards)
        if anew:
            console.print("  the cache that was there held no sample; it is begun anew")
        places: dict[str, Location | TextPart] = {tar.name: tar.location for tar in self._tars}
        places |= {name: part for name, (part, _) in self._parts.items()}
        unfinished = cache.plan(clear=True)
        jobs = [Job(part, places[part.tar], max_tries=self._config.cache.run.max_tries) for part in unfinished]
        num_finished = len(cache.manifest.parts) - len(jobs)
        if not jobs:
            console.print(f"  everything is finished already: {count_of(num_finished, 'shard')}")
        elif num_finished:
            console.print(f"  {count_of(num_finished, 'shard')} finished already, {len(jobs)} to do")
        return jobs

    def _cards(self, console: Console) -> list[dict[str, Any]]:
        """The cards that lie beside the tars, as far as they are of these tars."""
        by_folder: dict[str, list[Tar]] = {}
        for tar in self._tars:
            by_folder.setdefault(str(tar.location.parent), []).append(tar)
        cards = []
        for folder, tars in by_folder.items():
            card = read_card(Location.parse(folder))
            fitting = (digest_of_tars(self._facts.identity(tar).sha256 for tar in each) for each in (tars, self._tars))
            if card is not None and card["tars_sha256"] in fitting:
                cards.append(card)
            elif card is not None:
                console.print(
                    f"  the card in {folder} is of other tars, and not carried; `pea data card` makes it anew"
                )
        if len(cards) > MOST_CARDS:
            console.print(f"  of {len(cards)} cards, the first {MOST_CARDS} are carried")
        return cards[:MOST_CARDS]

    def _identity(self) -> Identity:
        found = cache_identity(
            self._config,
            self.corpus,
            identify=self._facts.identity,
            leave_out=self._left_out,
            texts=[same for _, same in self._parts.values()],
            captions=self._captions.digest,
        )
        self._captions.save()
        if self._cached is None:
            return found
        if self.corpus == "described" and (beside := self._config.corpora.texts_beside(self.corpus)) is not None:
            return with_former_descriptions(found, self._cached, beside[0])
        if self.corpus in DISTILLED:
            return found
        return without_new_captions(found, self._cached, besides=self._changes.replaced)
