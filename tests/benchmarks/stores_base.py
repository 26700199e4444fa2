"""What every way of keeping records has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Records = Mapping[str, np.ndarray]
"""Array name -> [N, ...]."""
Batches = Iterator[Mapping[str, Tensor]]


class Store:
    """One way of keeping records."""

    name = ""
    requires = ""
    """Module without which it cannot be measured."""
    forks = True
    """Whether it can be read in forked workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """Where it is; the cache's may be a location in a bucket."""

    def write(self, records: Records) -> None:
        """Keep N records."""
        raise NotImplementedError

    def batches(self, batch_size: int, workers: int) -> Batches:
        """Every record once, in random order."""
        raise NotImplementedError

    def remote_batches(self, url: str, empty: Path, batch_size: int, workers: int) -> Batches:
        """The same from a bucket, by way of an empty local folder."""
        raise NotImplementedError


def rows(records: Records) -> Iterator[dict[str, np.ndarray]]:
    """One record after the other."""
    for number in range(len(next(iter(records.values())))):
        yield {name: values[number] for name, values in records.items()}


class Items(Dataset[dict[str, Tensor]]):
    """Records by number."""

    def __init__(self, count: int, load: Callable[[int], dict[str, Tensor]]) -> None:
        self.count, self.load = count, load

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return self.load(number)


def loader(data: Any, batch_size: int, workers: int, *, shuffle: bool) -> Batches:
    """Torch's own."""
    made: Iterable[Mapping[str, Tensor]] = DataLoader(data, batch_size, shuffle=shuffle, num_workers=workers)
    return iter(made)
