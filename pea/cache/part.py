"""One finished part of a shard: its completion record, and the arrays of the store that it names."""

from __future__ import annotations

from functools import cached_property

from pea.cache.completion import read_record
from pea.cache.part_plan import PartPlace, PartPlan
from pea.cache.publication import generation_name, generations, newest
from pea.cache.schema import CAPTIONS, ArraySpec, Level, decode_texts, most_text_bytes
from pea.cache.store_copies import StoreCopies, default_copies
from pea.cache.stored_array import StoredArray
from pea.errors import CacheError, PeaError, ShardDamagedError
from pea.plurals import count_of
from pea.storage.local_copies import LocalCopies
from pea.storage.location import Location

_REMEDY = "Run `pea inspect check --repair`, then `pea cache` again."


class Part:
    """One finished part of a shard."""

    def __init__(self, plan: PartPlan, record: Location, copies: LocalCopies | None = None) -> None:
        """``record``: where its completion record is; ``copies``: keeps files of a bucket on this machine's disk.

        Raises:
            ShardUnfinishedError, ShardDamagedError: as ``read_record``.
            LocationError: the store lies outside of the cache.
        """
        self.plan, self._place = plan, record
        self.generation = generations([record.name])[plan.part][-1]
        """Of the record."""
        self.record = read_record(record)
        self.store = store_location(record, self.record.store)
        self._copies = self._make_copies(copies)
        self._arrays: dict[str, StoredArray] = {}

    def _make_copies(self, copies: LocalCopies | None) -> StoreCopies | None:
        if self.store.is_local or (copies is None and self.store.is_read_by_tensorstore):
            return None
        made = StoreCopies(copies or default_copies(), self.store, self.record.files)
        made.drop_replaced(self.plan.part)
        return made

    @property
    def is_replaced(self) -> bool:
        """Whether another record counts by now."""
        return not is_counting(PartPlace(self.plan, self._place))

    def array_names(self, bucket: str) -> list[str]:
        """Names of all arrays of a bucket, text columns included."""
        prefix, suffix = f"{bucket}/", "/zarr.json"
        names = (name for name in self.record.files if name.startswith(prefix) and name.endswith(suffix))
        inner = [name[len(prefix) : -len(suffix)] for name in names if len(name) > len(prefix) + len(suffix)]
        groups = {name.rpartition("/")[0] for name in inner}
        groups |= {above for group in groups for above in _folders_above(group)}
        return [name for name in inner if name not in groups]

    def array(self, bucket: str, name: str) -> StoredArray:
        """One array, checked when it is first used."""
        path = f"{bucket}/{name}"
        if path not in self._arrays:
            array = StoredArray(self.store, path, self.record.files, self._sizes, self._copies)
            self._check_rows(bucket, array, path)
            self._arrays[path] = array
        return self._arrays[path]

    @cached_property
    def _sizes(self) -> dict[str, int] | None:
        """Size of each stored file, where one listing is quicker than asking for each."""
        if self.store.is_local:
            return None
        entries = self.store.entries(recursive=True)
        return {entry.name: entry.status.size_bytes for entry in entries if entry.status is not None}

    def _check_rows(self, bucket: str, array: StoredArray, path: str) -> None:
        """An array has a row a sample or record, as its first dimension says."""
        per_sample = {"sample": 1, "record": self.plan.num_draws}.get(array.dimension_names[0])
        wanted = len(self.record.kept.get(bucket, ())) * (per_sample or 0)
        if per_sample is not None and len(array) != wanted:
            raise ShardDamagedError(
                "the shard is damaged",
                where=self.store / path,
                got=f"{count_of(len(array), 'row')} instead of {wanted}",
                remedy=_REMEDY,
            )

    def spec(self, bucket: str, name: str) -> ArraySpec:
        """What one array is."""
        array = self.array(bucket, name)
        level: Level = "sample" if array.dimension_names[0] == "sample" else "record"
        return ArraySpec(name, level, array.dtype.name, array.shape[1:], array.dimension_names[1:], array.attributes)

    def languages(self, bucket: str) -> list[str]:
        """Languages of which at least one sample has a caption."""
        names = (name.split("/") for name in self.array_names(bucket))
        return sorted(name[1] for name in names if name[0] == CAPTIONS and name[-1] == "bytes")

    def texts(self, bucket: str, name: str) -> list[str]:
        """A text column.

        Raises:
            ShardDamagedError: it is not one text a sample.
        """
        data, offsets = self.array(bucket, f"{name}/bytes"), self.array(bucket, f"{name}/offsets")
        count = len(self.record.kept.get(bucket, ()))
        try:
            if (offsets.shape, data.shape) != ((count + 1,), (len(data),)) or len(data) > most_text_bytes(count):
                raise ValueError(f"{len(data)} bytes and {len(offsets)} offsets for {count_of(count, 'text')}")
            return decode_texts(data.read(0, len(data)), offsets.read(0, len(offsets)))
        except PeaError:
            raise
        except ValueError as error:
            where = f"{self.store}/{bucket}/{name}"
            raise ShardDamagedError("not a column of texts", where=where, got=error, remedy=_REMEDY) from None


def is_counting(place: PartPlace) -> bool:
    """Whether a record counts, or there is none that does."""
    counting = newest(place.record.parent, place.plan.part)
    return counting is None or place.record.name == generation_name(place.plan.part, counting)


def replaced(where: str) -> CacheError:
    """The error of who reads what a newer record does not name any more."""
    return CacheError(
        "the shard was replaced while the cache was open",
        where=where,
        remedy="Samples were removed, or it was repaired: open the cache again.",
    )


def store_location(record: Location, name: str) -> Location:
    """Where the store that a record names is: beside it, and below the cache also where links lead.

    Raises:
        LocationError: it is elsewhere.
    """
    folder = record.parent
    return folder.parent.parent.below(f"{folder.parent.name}/{folder.name}/{name}")


def _folders_above(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:stop]) for stop in range(1, len(parts))]
