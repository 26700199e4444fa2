"""A headless Chromium, driven by the W3C WebDriver protocol through chromedriver."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromedriver")
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]
_FLAGS += ["--disable-sync", "--window-size=1400,1200"]


def is_here() -> bool:
    """Whether the programs are installed."""
    return all(shutil.which(each) for each in PROGRAMS)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Browser:
    """One window."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        capabilities = {"goog:chromeOptions": {"binary": shutil.which("chromium"), "args": _FLAGS}}
        answer = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self.session = f"/session/{answer['sessionId']}"

    def _ask(self, method: str, path: str, content: Any = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        self._ask("POST", f"{self.session}/url", {"url": url})

    def run(self, script: str) -> Any:
        """What a piece of JavaScript returns."""
        return self._ask("POST", f"{self.session}/execute/sync", {"script": script, "args": []})

    def wait_for(self, script: str, seconds: float = 120) -> Any:
        """What a piece of JavaScript returns once that is neither null nor false."""
        end = time.monotonic() + seconds
        while not (found := self.run(script)):
            assert time.monotonic() < end, f"in vain: {script}"
            time.sleep(0.2)
        return found

    def find(self, selector: str) -> str:
        found = self._ask("POST", f"{self.session}/element", {"using": "css selector", "value": selector})
        return str(next(iter(found.values())))

    def type(self, selector: str, text: str) -> None:
        element = self.find(selector)
        self._ask("POST", f"{self.session}/element/{element}/clear", {})
        self._ask("POST", f"{self.session}/element/{element}/value", {"text": text})

    def click(self, selector: str) -> None:
        self._ask("POST", f"{self.session}/element/{self.find(selector)}/click", {})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", f"{self.session}/screenshot")))

    def close(self) -> None:
        self._ask("DELETE", self.session)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser while the block runs."""
    port = free_port()
    driver = subprocess.Popen([str(shutil.which("chromedriver")), f"--port={port}"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                browser = Browser(port)
                break
            except OSError:
                time.sleep(0.2)
        else:
            raise AssertionError("chromedriver does not answer")
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait()
