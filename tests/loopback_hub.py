"""A small Hugging Face hub on 127.0.0.1, by the paths of its public API that huggingface_hub asks for.

What is pushed is kept in a folder and served from then on.
"""

from __future__ import annotations

import base64
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

    def __init__(self, models: dict[str, Path], uploads: Path | None = None) -> None:
        """`uploads`: folder for what is pushed; without it, nothing may be."""
        self.models, self.asked, self.uploads = models, list[str](), uploads
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.hub.asked.append(f"POST {self.path}")
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        words = self.path.split("?")[0].strip("/").split("/")
        if self.hub.uploads is None or "Bearer" not in self.headers.get("Authorization", ""):
            self._send(401, b'{"error": "not logged in"}', {"X-Error-Message": "not logged in"})
        elif words == ["api", "repos", "create"]:
            asked = json.loads(content)
            self._json({"url": f"{self.hub.url}/{asked['organization']}/{asked['name']}"})
        elif words == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif len(words) == 6 and words[4] == "preupload":
            files = [each["path"] for each in json.loads(content)["files"]]
            self._json({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in files]})
        elif len(words) == 6 and words[4] == "commit":
            self._commit("/".join(words[2:4]), content)
        else:
            self._send(404, b"{}", {})

    def _commit(self, name: str, content: bytes) -> None:
        assert self.hub.uploads is not None
        folder = self.hub.models.setdefault(name, self.hub.uploads / name)
        for line in map(json.loads, content.splitlines()):
            if line["key"] == "file":
                path = folder / line["value"]["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(line["value"]["content"]))
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{SHA}", "commitOid": SHA})

    def _json(self, answer: Any) -> None:
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        words = self.path.split("?")[0].strip("/").split("/")
        if words[:2] == ["api", "models"] and len(words) == 6 and words[4] == "revision":
            self._describe("/".join(words[2:4]), words[5])
        elif words[:2] == ["api", "models"] and len(words) == 4:
            self._describe("/".join(words[2:]), "main")
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
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def loopback_hub(models: dict[str, Path], uploads: Path | None = None) -> Iterator[Hub]:
    """The hub while the block runs."""
    hub = Hub(models, uploads)
    thread = threading.Thread(target=hub.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()
