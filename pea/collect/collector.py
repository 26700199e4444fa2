"""One tar -> one finished part of a shard: decode, ask the frozen models, write; the three overlap.

What happens to a tar is decided here; where it happens (process, machine, device) is not. Batches are formed from the
tar's samples in their order, and the UNet sees ``batch_size`` samples at *one* draw each. So a record's bits depend on
neither the number of draws nor on other tars, workers, or blocks. Several batches are under way at once, each in a
thread of its own: on a CPU a batch per core is quicker than one batch on all cores, and on a GPU the host's share of
one batch is done while the device works on another.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain

import torch

from pea.cache import Cache, PartPlan, ShardSchema, ShardWriter
from pea.cache.differences import check_same
from pea.cache.identity import READING, model_identity
from pea.cache.part_plan import PartPlace
from pea.cache.shard import Shard
from pea.cache.text_statistics import first_captions, write_statistics
from pea.collect.decoded import BucketRows, Decoded
from pea.collect.descriptions import descriptions_for
from pea.collect.drawn_texts import drawn_samples
from pea.collect.events import Done, Finished, ProgressEvent, Started, Task
from pea.collect.overlap import (
    BATCHES_BEHIND,
    DECODED_AHEAD,
    WriteBehind,
    batches_at_once,
    map_in_threads,
    read_ahead,
)
from pea.collect.teacher_rows import FrozenModels
from pea.config import Config
from pea.corpus.caption_tables import CaptionsBeside
from pea.corpus.corpus_names import CorpusName
from pea.corpus.samples import Rejected, Sample, TarIdentity, read_tar
from pea.corpus.tars import expected_samples
from pea.corpus.texts import TextPart
from pea.cpu import shared_threads
from pea.errors import CorpusError, IdentityError

_FEWEST_CAPTIONS = 64
"""Of fewer, statistics say little of the corpus."""


class Collector:
    """Turns tars into shards with the models that it holds."""

    def __init__(self, config: Config, corpus: CorpusName, device: torch.device) -> None:
        """Raises what ``FrozenModels`` does."""
        self._source, self._cache_config = config.corpora.source(corpus), config.cache
        self._descriptions = descriptions_for(config, corpus)
        self._corpus, self._texts_beside = corpus, config.corpora.texts_beside(corpus)
        self._models_identity = partial(model_identity, config, corpus)
        self._checked: set[str] = set()
        """Identities of caches that the loaded models are known to fit."""
        self._models, self._device = FrozenModels(config, corpus, device), device
        self._stopwatch = self._models.stopwatch

    def collect(self, cache: Cache, task: Task, in_flight: Callable[[str], object] = str) -> Iterator[ProgressEvent]:
        """Write one part of the shard of a tar, telling what has been done.

        ``in_flight`` is told the key that is worked on: each one that is decoded and, in a careful task, each one
        that the models see; the empty key when it could be several.

        Raises:
            CorpusError: the tar cannot be read to its end, or it or its caption table is not what the cache was begun
                with.
            IdentityError: the cache was begun by older reading rules, or with other models than those that were loaded.
            DiskFullError: the shard cannot be written; nothing half-written looks finished.
        """
        check_reading(cache)
        self._check_models(cache)
        started, finished = time.monotonic(), Finished()
        self._stopwatch.take()
        num_expected = task.tar.num_rows if isinstance(task.tar, TextPart) else expected_samples(task.tar)
        yield Started(num_expected)
        at_once = self._batches_at_once(num_expected)
        made_with = "torch.compile" if self._cache_config.run.compile else ""
        schema = self._schema(task.part)
        tar = cache.identity.tars_by_name[task.part.tar]
        beside = self._captions_beside(tar)
        with ShardWriter(cache, task.part.tar, task.part.part, schema, made_with=made_with) as writer:
            decoded = self._decode(task, tar, in_flight, beside)
            with (
                shared_threads(at_once),
                closing(decoded if task.careful else read_ahead(decoded, DECODED_AHEAD)) as items,
                WriteBehind(partial(self._write, writer, task.part), BATCHES_BEHIND) as behind,
                closing(
                    map_in_threads(
                        partial(self._answer, task, in_flight), self._batches(items), 1 if task.careful else at_once
                    )
                ) as answers,
            ):
                for item in chain.from_iterable(answers):
                    behind.put(item)
                    finished.num_samples += len(item.keys) if isinstance(item, BucketRows) else 0
                    yield Done(len(item.keys) if isinstance(item, BucketRows) else 1)
            writer.caption_tables = beside.counts if beside else {}
            with self._stopwatch("write"):
                finished.num_bytes = writer.finish().num_bytes
        self._describe_text(cache, task.part)
        finished.seconds, finished.stage_seconds = time.monotonic() - started, self._stopwatch.take()
        yield finished

    def _describe_text(self, cache: Cache, part: PartPlan) -> None:
        """Statistics of the text states of the first tar's first captions, beside the cache, for the adapter's start.

        They come from what is stored of that tar, so that they depend on neither batches nor workers.
        """
        if part != cache.manifest.parts[0] or not self._models.has_teacher:
            return
        first = Shard(cache.identity.tars_by_name[part.tar], [PartPlace(part, cache.record_path(part))], part.num_draws)
        captions = first_captions([first], [self._source.source_language])
        if len(captions) >= _FEWEST_CAPTIONS:
            with self._stopwatch("text"):
                write_statistics(cache.directory, self._models.text_statistics(captions))

    def _check_models(self, cache: Cache) -> None:
        """Files may have changed since the manifest was written, and on another machine they may be others."""
        if cache.identity.digest not in self._checked:
            check_same(cache.identity, self._models_identity(), where=cache.directory)
            self._checked.add(cache.identity.digest)

    def _schema(self, part: PartPlan) -> ShardSchema:
        buckets = {name: part.select(layout.arrays) for name, layout in self._models.layouts.items()}
        return ShardSchema(part.num_draws, (), buckets, part.draw_start)

    def _captions_beside(self, tar: TarIdentity) -> CaptionsBeside | None:
        """The captions that lie beside a tar, where the cache is made with some. Descriptions are no captions.

        Raises:
            CorpusError: the texts beside the tar are not those that the cache was begun with.
        """
        if tar.captions is None:
            return None
        tables, language = self._texts_beside or (None, "")
        found = tables and tables.beside(tar.name, language)
        if tables is None or not found or found.digest != tar.captions:
            name = f"described/{tar.name}" if self._descriptions else tar.name
            raise CorpusError(
                "the captions beside the tar have changed since the cache was begun",
                where=", ".join(tables.folders) if tables else f"corpora.{self._corpus}",
                got=tar.name,
                remedy=f"Restore the table, or make this tar's samples again with `pea cache --replace {name}`.",
            )
        return None if self._descriptions else found

    def _decode(
        self,
        task: Task,
        expect: TarIdentity,
        in_flight: Callable[[str], object],
        beside: CaptionsBeside | None = None,
    ) -> Generator[Decoded | Rejected, None, None]:
        if isinstance(task.tar, TextPart):
            yield from drawn_samples(
                self._models,
                self._cache_config,
                task.tar,
                task.part,
                skip=task.skip,
                in_flight=in_flight,
                careful=task.careful,
                expect=expect,
            )
            return
        samples = read_tar(
            task.tar,
            self._source.caption_fields(),
            required=() if self._descriptions else (self._source.source_language,),
            rules=self._source.reading_rules(self._cache_config),
            skip=task.skip,
            in_flight=in_flight,
            expect=expect,
            beside=beside,
        )
        while True:
            with self._stopwatch("decode"):
                sample = next(samples, None)
                if isinstance(sample, Sample) and self._descriptions:
                    sample = self._descriptions.described(sample, self._source.source_language)
                if isinstance(sample, Sample):
                    item: Decoded | Rejected = Decoded.of(sample, self._cache_config)
                elif sample is None:
                    return
                else:
                    item = sample
            yield item

    def _batches_at_once(self, num_samples: int) -> int:
        batch_size, on_cpu = self._cache_config.run.batch_size, self._device.type == "cpu"
        return batches_at_once(num_samples, batch_size, torch.get_num_threads(), on_cpu=on_cpu)

    def _batches(self, items: Iterable[Decoded | Rejected]) -> Iterator[list[Decoded] | Rejected]:
        """Batches of one bucket, in the order in which they fill; rejected samples pass."""
        waiting: dict[tuple[int, int], list[Decoded]] = defaultdict(list)
        for item in items:
            if isinstance(item, Rejected):
                yield item
                continue
            batch = waiting[item.placed.bucket]
            batch.append(item)
            if len(batch) == self._cache_config.run.batch_size:
                yield waiting.pop(item.placed.bucket)
        yield from waiting.values()

    def _answer(
        self, task: Task, in_flight: Callable[[str], object], batch: list[Decoded] | Rejected
    ) -> list[BucketRows | Rejected]:
        if isinstance(batch, Rejected):
            return [batch]
        if task.careful:
            for item in batch:
                in_flight(item.key)
                self._models.answer([item], task.part)
            in_flight("")
        rows, rejected = self._models.answer(batch, task.part)
        return [*rejected, *([] if rows is None else [rows])]

    def _write(self, writer: ShardWriter, part: PartPlan, item: BucketRows | Rejected) -> None:
        if isinstance(item, Rejected):
            writer.reject(item.key, item.reason, item.detail)
            return
        with self._stopwatch("write"):
            writer.append(
                item.bucket,
                keys=item.keys,
                captions=item.captions,
                samples={name: rows for name, rows in item.samples.items() if part.holds(name, "sample")},
                records={name: rows for name, rows in item.records.items() if part.holds(name, "record")},
            )


def check_reading(cache: Cache) -> None:
    """Make sure that what is added to a cache is read by the rules of what is there.

    Raises:
        IdentityError: it was begun before the rules were written down.
    """
    if READING not in cache.identity.fields:
        raise IdentityError(
            "the cache was begun by older rules of reading tars, and is not finished",
            where=cache.directory,
            remedy="Use what is there as it is, finish it with the release that began it, or choose another run_dir.",
        )


__all__ = ["Collector", "Done", "Finished", "ProgressEvent", "Started", "Task"]
