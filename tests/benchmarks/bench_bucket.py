"""Reading the cache from a bucket: an S3 server on the loopback, with and without latency, beside its ceiling.

    python -m tests.benchmarks.bench_bucket
    python -m tests.benchmarks.bench_bucket --full        (the sizes of docs/results)
    python -m tests.benchmarks.bench_bucket --workers 0   (opening and copies, without much waiting)

Records and batches are those of ``bench_storage``, an epoch per measurement, opening included. MDS and LitData, where
they are installed, read the same records from the same bucket, into an empty local folder at each measurement, as
their users would.

*ceiling*: plain ranged GETs through obstore, 32 under way at a time (as many as tensorstore has), of the bytes that the
cache's reader asked for: the same ranges of the same objects, of which nothing is decoded or checked. They are noted
by a proxy before the first round. Latency: a proxy of its own process waits before it passes a request on; at 0 ms
there is none.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import S3Store

from pea.cache import reader
from pea.storage import Location
from pea.storage.local_copies import LocalCopies
from tests.benchmarks import harness
from tests.benchmarks.bench_storage import PeaCache, consume, make_records, stores
from tests.benchmarks.stores_base import Store
from tests.object_server import SECRET, running
from tests.storage.proxy import FaultProxy

_BATCH = 32
_ABREAST = 32
_LATENCIES_MS = (0, 20)
_ROOT = Path(__file__).resolve().parents[2]
_IN_TURN = "pea cache, its shards opened one after another"
_COPIED = "pea cache, a later epoch from its copies"
_REMOTE = ("MDS (mosaicml-streaming)", "LitData")


class Get(NamedTuple):
    """One GET of the cache's reader."""

    key: str
    """In the bucket."""
    start: int
    stop: int | None
    """None: to its end; a negative start counts from there."""


@contextmanager
def delayed(upstream: str, latency_ms: int) -> Iterator[str]:
    """The URL of a server whose requests wait."""
    if not latency_ms:
        yield upstream
        return
    command = [sys.executable, "-m", "tests.storage.proxy", upstream, str(latency_ms / 1000)]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


def gets_of(server: str, bucket: str, read: Callable[[], object]) -> list[Get]:
    """What ``read`` fetches of a bucket: data alone, no listings, and no question whether something is there."""
    with FaultProxy(server) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.url
        read()
        seen = [request for request in proxy.requests if request.method == "GET" and "?" not in request.path]
    found = []
    for request in seen:
        key = unquote(urlsplit(request.path).path).removeprefix(f"/{bucket}/")
        ranges = {name.lower(): value for name, value in request.headers.items()}.get("range", "")
        first, _, last = ranges.removeprefix("bytes=").partition("-")
        if first:
            found.append(Get(key, int(first), int(last) + 1 if last else None))
        else:
            found.append(Get(key, -int(last) if last else 0, None))
    return found


def fetch_all(endpoint: str, bucket: str, gets: Sequence[Get]) -> int:
    """Do some GETs, ``_ABREAST`` at a time; returns the bytes."""
    store = S3Store(
        bucket,
        endpoint=endpoint,
        region="us-east-1",
        access_key_id="tester",
        secret_access_key=SECRET,
        client_options={"allow_http": True},
    )

    async def fetch(get: Get, room: asyncio.Semaphore) -> int:
        async with room:
            if get.stop is None:
                options: Any = {"range": {"suffix": -get.start} if get.start < 0 else {"offset": get.start}}
                return len(await (await obstore.get_async(store, get.key, options=options)).bytes_async())
            return len(await obstore.get_range_async(store, get.key, start=get.start, end=get.stop))

    async def every() -> int:
        room = asyncio.Semaphore(_ABREAST)
        return sum(await asyncio.gather(*(fetch(get, room) for get in gets)))

    return asyncio.run(every())


def upload(folder: Path, location: Location) -> None:
    """Put the files of a folder into the bucket."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            (location / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())


def others(folder: Path, location: Location, records: Any) -> Iterator[tuple[Store, str]]:
    """The other stores that read from buckets, filled, with their URLs there."""
    for store in stores(folder, ()):
        if store.name in _REMOTE:
            store.write(records)
            place = location / type(store).__name__.lower()
            upload(store.folder, place)
            yield store, str(place)


def measure(
    size_bytes: int, count: int, rounds: int, folder: Path, worker_numbers: Sequence[int]
) -> tuple[dict[str, dict[str, list[float]]], float]:
    """Latency and workers -> store -> records a second, round by round; and megabytes that the cache's reader gets."""
    records = make_records(size_bytes, count)
    found: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        server = stack.enter_context(running())
        os.environ.update({**server.environment(), "AWS_ALLOW_HTTP": "true"})
        bucket = server.new_bucket()
        location = Location.parse(f"s3://{bucket}")
        cache = PeaCache(location)  # type: ignore[arg-type]
        cache.write(records)
        copied = PeaCache(location)  # type: ignore[arg-type]
        copied.copies = LocalCopies(work=folder)
        rivals = list(others(folder, location, records))

        def read(endpoint: str, workers: int) -> None:
            os.environ["AWS_ENDPOINT_URL"] = endpoint
            consume(cache.batches(_BATCH, workers), count)

        def read_in_turn(endpoint: str, workers: int) -> None:
            with patch.object(reader, "_SHARDS", 1):
                read(endpoint, workers)

        def read_copies(endpoint: str, workers: int) -> None:
            os.environ["AWS_ENDPOINT_URL"] = endpoint
            consume(copied.batches(_BATCH, workers), count)

        def read_rival(endpoint: str, workers: int, store: Store, url: str) -> None:
            os.environ["AWS_ENDPOINT_URL"] = os.environ["S3_ENDPOINT_URL"] = endpoint
            empty = Path(tempfile.mkdtemp(dir=folder))
            consume(store.remote_batches(url, empty, _BATCH, workers), count)
            shutil.rmtree(empty)

        gets = gets_of(server.url, bucket, lambda: consume(cache.batches(_BATCH, 0), count))
        for latency_ms in _LATENCIES_MS:
            endpoint = stack.enter_context(delayed(server.url, latency_ms))
            num_bytes = fetch_all(endpoint, bucket, gets)
            read_copies(endpoint, 0)
            for workers in worker_numbers:
                cases: dict[str, Callable[[], object]] = {
                    "ceiling": partial(fetch_all, endpoint, bucket, gets),
                    cache.name: partial(read, endpoint, workers),
                    _IN_TURN: partial(read_in_turn, endpoint, workers),
                    _COPIED: partial(read_copies, endpoint, workers),
                }
                for store, url in rivals:
                    cases[store.name] = partial(read_rival, endpoint, workers, store, url)
                seconds = harness.interleave(cases, rounds)
                found[f"{latency_ms} ms, {workers} workers"] = {
                    name: [count / each for each in times] for name, times in seconds.items()
                }
    return found, num_bytes / 1e6


def main(argv: list[str] | None = None) -> int:
    """Measure both sizes and publish."""
    load = harness.load()
    parser = harness.parser(__doc__, "bucket")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="of the reader (default: 0 1 2)")
    arguments = parser.parse_args(argv)
    counts = {60_000: 1024, 2_000_000: 64} if arguments.full else {60_000: 256, 2_000_000: 32}
    result: dict[str, Any] = {}
    text = ""
    for size_bytes, count in counts.items():
        with tempfile.TemporaryDirectory(prefix="pea-bench-") as folder:
            found, megabytes = measure(size_bytes, count, arguments.rounds, Path(folder), arguments.workers)
        result[str(size_bytes)] = {"records": count, "megabytes_fetched": megabytes, "records_per_s": found}
        text += (
            f"\nRecords of {size_bytes // 1000} KB ({count} of them, {megabytes:.1f} MB fetched by the cache's reader),"
        )
        text += " records/s: median (least-most)\n\n"
        names = list(next(iter(found.values())))
        rows = [[name, *(harness.spread(each[name]) for each in found.values())] for name in names]
        text += harness.table(["store", *found], rows)
    harness.publish(arguments.out, text, result, load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
