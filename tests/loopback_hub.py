"""A small Hugging Face hub on 127.0.0.1, by the paths of its public API that huggingface_hub asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves folders as `org/name`; every revision but `gone` is the one that there is."""

    def __init__(self, models: dict[str, Path]) -> None:
        self.models, self.asked = models, list[str]()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        words = self.path.split("?")[0].strip("/").split("/")
        if words[:2] == ["api", "models"] and len(words) == 6 and words[4] == "revision":
            self._describe("/".join(words[2:4]), words[5])
        elif words[:2] == ["api", "models"] and len(words) == 6 and words[4] == "tree":
            self._list("/".join(words[2:4]))
        elif len(words) > 4 and words[2] == "resolve":
            self._file("/".join(words[:2]), "/".join(words[4:]))
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _describe(self, name: str, revision: str) -> None:
        folder = self.hub.models.get(name)
        if folder is None or revision == "gone":
            code = "RepoNotFound" if folder is None else "RevisionNotFound"
            self._send(404, b"{}", {"X-Error-Code": code})
            return
        files = [{"rfilename": str(path.relative_to(folder))} for path in sorted(folder.rglob("*")) if path.is_file()]
        described = {"id": name, "modelId": name, "sha": SHA, "siblings": files, "private": False}
        self._send(200, json.dumps(described).encode(), {"Content-Type": "application/json"})

    def _list(self, name: str) -> None:
        folder = self.hub.models[name]
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        listed = [
            {"type": "file", "path": str(path.relative_to(folder)), "size": path.stat().st_size, "oid": "0" * 40}
            for path in paths
        ]
        self._send(200, json.dumps(listed).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, file: str) -> None:
        path = self.hub.models[name] / file
        if not path.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        content = path.read_bytes()
        self._send(200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": SHA})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def loopback_hub(models: dict[str, Path]) -> Iterator[Hub]:
    """The hub while the block runs."""
    hub = Hub(models)
    thread = threading.Thread(target=hub.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()
