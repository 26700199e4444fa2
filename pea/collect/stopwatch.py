"""Where the time goes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the seconds spent under each name, in any number of threads: ``with stopwatch("vae"): ...``."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the ``with`` block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._seconds[name] += time.perf_counter() - started  # type: ignore[assignment]

    def take(self) -> dict[str, float]:
        """Seconds by name since the last ``take``."""
        with self._lock:
            seconds, self._seconds = dict(self._seconds), Counter()
        return {name: float(value) for name, value in seconds.items()}
