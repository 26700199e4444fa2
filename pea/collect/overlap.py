"""Helpers that let reading, computing and writing overlap: items made ahead of time, side by side, and used behind."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
DECODED_AHEAD = 64
"""Samples of a tar that are decoded before a batch asks for them."""
BATCHES_BEHIND = 2
"""Answered batches that wait to be written."""
_BATCHES_AT_ONCE = 2
_CPU_BATCHES_AT_ONCE = 8
_END = object()
_POLL_S = 0.1


def batches_at_once(num_samples: int, batch_size: int, num_threads: int, *, on_cpu: bool) -> int:
    """Batches of a tar that are under way together. ``num_threads``: of torch."""
    wanted = min(_CPU_BATCHES_AT_ONCE, num_threads) if on_cpu else _BATCHES_AT_ONCE
    return max(1, min(wanted, -(-num_samples // batch_size)))


def read_ahead(items: Iterable[Item], size: int) -> Generator[Item, None, None]:
    """The same items, up to ``size`` of them made ahead of time in a thread.

    An error in the thread is raised here, after the items before it. Closing the iterator ends the thread.
    """
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(size)
    stop = threading.Event()
    thread = threading.Thread(target=_produce, args=(items, ready, stop), name="pea-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()


def _produce(items: Iterable[Any], ready: queue.Queue[tuple[Any, BaseException | None]], stop: threading.Event) -> None:
    def put(item: Any, error: BaseException | None = None) -> bool:
        while not stop.is_set():
            try:
                ready.put((item, error), timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False

    try:
        for item in items:
            if not put(item):
                return
        put(_END)
    except BaseException as error:  # noqa: BLE001 - it belongs to the thread that reads
        put(None, error)


def map_in_threads(
    use: Callable[[Item], Result], items: Iterable[Item], num_threads: int
) -> Generator[Result, None, None]:
    """``use(item)`` of each item, in the items' order, in as many threads; one item more waits.

    An error is raised here, after the results before it. With one thread, everything happens in the caller's.
    """
    if num_threads == 1:
        yield from map(use, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="pea-map") as pool:
        try:
            for item in items:
                pending.append(pool.submit(use, item))
                if len(pending) > num_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class WriteBehind(Generic[Item]):
    """Calls ``use`` on items in their order, in one thread; at most ``size`` items wait.

    An error in ``use`` is raised by the next ``put``, or on leaving the ``with`` block, which waits for all items.
    """

    def __init__(self, use: Callable[[Item], object], size: int) -> None:
        self._use, self._size = use, size
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pea-write-behind")
        self._pending: deque[Future[object]] = deque()

    def put(self, item: Item) -> None:
        """Hand an item over; waits while too many are pending."""
        self._pending.append(self._pool.submit(self._use, item))
        while self._pending and (len(self._pending) > self._size or self._pending[0].done()):
            self._pending.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                while self._pending:
                    self._pending.popleft().result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
