"""An S3 server of its own process on the loopback, which ends with the process that started it.

``with running() as server: ...``; by hand: ``python -m tests.object_server`` prints its URL and serves until its input
ends.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
SECRET = "a-very-secret-key-of-the-tests"


@dataclass(frozen=True)
class ObjectServer:
    """A running server."""

    url: str

    def new_bucket(self) -> str:
        """The name of a fresh, empty bucket."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT"), timeout=30):
            return name

    def environment(self, url: str | None = None) -> Mapping[str, str]:
        """What every library, in this process or another, needs to reach the server (or ``url`` before it)."""
        return {
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


@contextmanager
def running() -> Iterator[ObjectServer]:
    """Start a server and end it with the block, or when this process dies."""
    command = [sys.executable, "-m", "tests.object_server"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with subprocess.Popen(
        command,
        cwd=_ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:"), f"the server did not start: {url!r}"
            yield ObjectServer(url)
        finally:
            process.stdin.close()
            process.wait(timeout=30)


def _make_atomic() -> None:
    """Let one request at a time change or list keys, as S3 guarantees it: moto checks a condition, and then writes."""
    from moto.s3.responses import S3Response

    lock = threading.RLock()

    def one_at_a_time(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def locked(*args: Any, **kwargs: Any) -> Any:
            with lock:
                return method(*args, **kwargs)

        return locked

    names = ("put_object", "delete_object", "list_objects", "list_objects_v2")
    for name in (*names, "_key_response_post", "_bucket_response_post"):
        setattr(S3Response, name, one_at_a_time(getattr(S3Response, name)))


def _make_quick() -> None:
    """Let moto list its folder of services once, and not at each request."""
    from moto import backends

    modules = frozenset(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: modules


def main() -> None:
    import logging

    from moto.server import ThreadedMotoServer

    _make_atomic()
    _make_quick()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
