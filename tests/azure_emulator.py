"""An Azure emulator on the loopback, where `make emulators` has installed it (Node); it ends with the tests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from pea.storage import Location, RetryPolicy, configure

_REPOSITORY = Path(__file__).parents[1]
# Of every azurite; not a secret.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an Azure emulator on the loopback; `make emulators` installs it."""
    program = shutil.which("azurite-blob", path=str(_REPOSITORY / ".emulators/node_modules/.bin"))
    if program is None:
        pytest.skip("azurite is not installed (`make emulators`)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--silent"]
    folder = tmp_path_factory.mktemp("azurite")
    with subprocess.Popen([*command, "--disableTelemetry", "--skipApiVersionCheck"], cwd=folder) as process:
        try:
            _wait_for(port, process)
            yield f"http://127.0.0.1:{port}/{_ACCOUNT}"
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("azurite did not start")


@pytest.fixture
def azure_container(azurite: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Location]:
    """A fresh container of the emulator."""
    name = f"box-{uuid.uuid4().hex[:12]}"
    date, version = formatdate(usegmt=True), "2021-08-06"
    to_sign = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n"
    to_sign += f"/{_ACCOUNT}/{_ACCOUNT}/{name}\nrestype:container"
    signature = base64.b64encode(hmac.digest(base64.b64decode(_KEY), to_sign.encode(), hashlib.sha256)).decode()
    headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {_ACCOUNT}:{signature}"}
    url = f"{azurite}/{name}?restype=container"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers), timeout=30).close()
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", _ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", _KEY)
    policy = RetryPolicy(max_retries=4, first_wait_s=0.02, longest_wait_s=0.2, give_up_after_s=60, silence_s=30)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", azurite)
    configure({}, policy)
    yield Location.parse(f"az://{name}")
    configure({}, RetryPolicy())
