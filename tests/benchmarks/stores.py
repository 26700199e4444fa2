"""The same records in the formats that one would pick: each can write them and give shuffled batches of tensors.

A record is a dict of a dozen arrays. Where a library offers no batching of its own, torch's DataLoader does it, with
forked workers, as its users would.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from torch.utils.data import default_collate

from tests.benchmarks.stores_base import Batches, Items, Records, Store, loader, rows


class SafetensorsFiles(Store):
    """One safetensors file per record."""

    name = "safetensors per record"

    def write(self, records: Records) -> None:
        for number, row in enumerate(rows(records)):
            safetensors.numpy.save_file({n: np.ascontiguousarray(v) for n, v in row.items()}, self._path(number))

    def batches(self, batch_size: int, workers: int) -> Batches:
        count = len(list(self.folder.iterdir()))
        items = Items(count, lambda number: safetensors.torch.load_file(self._path(number)))
        return loader(items, batch_size, workers, shuffle=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:07d}.safetensors"


class TorchFiles(Store):
    """One ``torch.save`` per record."""

    name = "torch.save per record"

    def write(self, records: Records) -> None:
        for number, row in enumerate(rows(records)):
            torch.save({n: torch.from_numpy(np.array(v)) for n, v in row.items()}, self._path(number))

    def batches(self, batch_size: int, workers: int) -> Batches:
        count = len(list(self.folder.iterdir()))
        items = Items(count, lambda number: torch.load(self._path(number), weights_only=True))
        return loader(items, batch_size, workers, shuffle=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:07d}.pt"


class Memmaps(Store):
    """One ``.npy`` per array, mapped."""

    name = "npy memmap"

    def write(self, records: Records) -> None:
        for name, values in records.items():
            np.save(self.folder / f"{name.replace('/', '%')}.npy", values)

    def batches(self, batch_size: int, workers: int) -> Batches:
        maps = {path.stem.replace("%", "/"): np.load(path, mmap_mode="r") for path in self.folder.iterdir()}
        count = len(next(iter(maps.values())))
        items = Items(count, lambda number: {n: torch.from_numpy(np.array(v[number])) for n, v in maps.items()})
        return loader(items, batch_size, workers, shuffle=True)


class PlainZarr(Store):
    """zarr-python, one array per name, one row per chunk, rows fetched by number."""

    name = "zarr-python"
    forks = False  # its event loop does not survive a fork

    def write(self, records: Records) -> None:
        import zarr

        group = zarr.create_group(self.folder / "store.zarr", zarr_format=3)
        for name, values in records.items():
            group.create_array(name, data=values, chunks=(1, *values.shape[1:]), shards=values.shape)

    def batches(self, batch_size: int, workers: int) -> Batches:
        import zarr

        group = zarr.open_group(self.folder / "store.zarr", mode="r")
        arrays: dict[str, Any] = dict(_arrays(group))
        order = np.random.default_rng(0).permutation(next(iter(arrays.values())).shape[0])
        return self._batches(arrays, order, batch_size)

    @staticmethod
    def _batches(arrays: dict[str, Any], order: np.ndarray, batch_size: int) -> Batches:
        for start in range(0, len(order), batch_size):
            chosen = np.sort(order[start : start + batch_size])
            yield {name: torch.from_numpy(np.asarray(array.oindex[chosen])) for name, array in arrays.items()}


def _arrays(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, member in group.members():
        if hasattr(member, "members"):
            yield from _arrays(member, f"{prefix}{name}/")
        else:
            yield prefix + name, member


class WebDataset(Store):
    """Tars of 256 records, each a safetensors blob; a shuffle buffer of two tars."""

    name = "webdataset"
    requires = "webdataset"

    def write(self, records: Records) -> None:
        blobs = [safetensors.numpy.save({n: np.ascontiguousarray(v) for n, v in row.items()}) for row in rows(records)]
        for first in range(0, len(blobs), 256):
            with tarfile.open(self.folder / f"{first // 256:05d}.tar", "w") as tar:
                for number, blob in enumerate(blobs[first : first + 256], start=first):
                    info = tarfile.TarInfo(f"{number:07d}.st")
                    info.size = len(blob)
                    tar.addfile(info, io.BytesIO(blob))

    def batches(self, batch_size: int, workers: int) -> Batches:
        import webdataset

        tars = sorted(map(str, self.folder.glob("*.tar")))
        data = webdataset.WebDataset(tars, shardshuffle=len(tars), seed=0, empty_check=False).shuffle(512)
        items = data.map(lambda sample: safetensors.torch.load(sample["st"]))
        return loader(items.batched(batch_size, collation_fn=default_collate), None, workers, shuffle=False)  # type: ignore[arg-type]


class Mds(Store):
    """MosaicML Streaming: an MDS file with a column per array."""

    name = "MDS (mosaicml-streaming)"
    requires = "streaming"

    def write(self, records: Records) -> None:
        _import_streaming()
        from streaming.base import MDSWriter

        columns = {name.replace("/", "%"): _mds_type(values) for name, values in records.items()}
        with MDSWriter(out=str(self.folder), columns=columns) as writer:
            for row in rows(records):
                writer.write({name.replace("/", "%"): _as_mds(value) for name, value in row.items()})

    def batches(self, batch_size: int, workers: int) -> Batches:
        _import_streaming()
        from streaming.base import StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()
        data = StreamingDataset(local=str(self.folder), shuffle=True, batch_size=batch_size)
        return loader(data, batch_size, workers, shuffle=False)

    def remote_batches(self, url: str, empty: Path, batch_size: int, workers: int) -> Batches:
        """The same from a bucket, through an empty local folder."""
        _import_streaming()
        from streaming.base import StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()
        data = StreamingDataset(remote=url, local=str(empty), shuffle=True, batch_size=batch_size)
        return loader(data, batch_size, workers, shuffle=False)


def _import_streaming() -> None:
    """Its base package alone: the whole one needs a torchvision that fits torch, for data sets of images."""
    spec = importlib.util.find_spec("streaming")
    assert spec is not None
    if "streaming" not in sys.modules:
        sys.modules["streaming"] = importlib.util.module_from_spec(spec)


def _mds_type(values: np.ndarray) -> str:
    if values.ndim == 1:
        return "int64"  # torch's collation knows no unsigned numbers of more than a byte
    return f"ndarray:{values.dtype}:{','.join(map(str, values.shape[1:]))}"


def _as_mds(value: Any) -> Any:
    return np.ascontiguousarray(value) if value.ndim else value.astype(np.int64)


def _as_litdata(value: Any) -> Any:
    """It keeps Python numbers and tensors, but knows no unsigned numbers of more than a byte."""
    return torch.from_numpy(np.array(value)) if value.ndim else value.item()


class LitData(Store):
    """LitData's binary chunks."""

    name = "LitData"
    requires = "litdata"

    def write(self, records: Records) -> None:
        from litdata.streaming.writer import BinaryWriter

        writer = BinaryWriter(str(self.folder), chunk_bytes="32MB")
        for number, row in enumerate(rows(records)):
            writer[number] = {name: _as_litdata(value) for name, value in row.items()}
        writer.done()
        writer.merge()

    def batches(self, batch_size: int, workers: int) -> Batches:
        from litdata import StreamingDataLoader, StreamingDataset

        data = StreamingDataset(str(self.folder), shuffle=True)
        made = StreamingDataLoader(data, batch_size=batch_size, num_workers=workers)
        return cast("Batches", iter(made))

    def remote_batches(self, url: str, empty: Path, batch_size: int, workers: int) -> Batches:
        """The same from a bucket, through an empty local folder."""
        from litdata import StreamingDataLoader, StreamingDataset
        from litdata.streaming import downloader

        downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # it has no setting for a server on the loopback
        options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
        data = StreamingDataset(url, shuffle=True, cache_dir=str(empty), storage_options=options)
        made = StreamingDataLoader(data, batch_size=batch_size, num_workers=workers)
        return cast("Batches", iter(made))


OTHERS: tuple[type[Store], ...] = (
    WebDataset, LitData, Mds, SafetensorsFiles, TorchFiles, Memmaps, PlainZarr,
)  # fmt: skip
