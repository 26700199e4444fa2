"""An HTTP proxy on the loopback that treats requests badly on purpose: for tests of faults and for benchmarks.

    with FaultProxy(server.url) as proxy:
        proxy.fail(3, status=503)            # the next three requests are answered with 503
        proxy.cut(1, after_bytes=1000)       # the next answer breaks off after 1,000 bytes of its body
        proxy.lose_answer(1, method="PUT")   # the next PUT is carried out, but its answer never comes
        proxy.refuse_for(2.0)                # connections are dropped at once for two seconds
        proxy.stall(1, seconds=5)            # the next request waits
        proxy.latency_s = 0.02               # every request waits
        proxy.on_request = lambda number, request: ...   # called before each request is carried out

``python -m tests.storage.proxy UPSTREAM LATENCY_S`` prints its URL and serves until its input ends.
"""

from __future__ import annotations

import http.client
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

_BLOCK_BYTES = 1 << 16
_OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}


@dataclass
class Request:
    """A request as it came in, and how it ended."""

    method: str
    path: str
    """With the query, quoted."""
    num_bytes: int
    """Length of its body."""
    headers: dict[str, str]
    status: int = 0
    """Answer that was passed on or made up; 0: none."""


@dataclass
class Fault:
    """What is done to the next ``times`` requests that fit."""

    kind: str
    times: int
    status: int = 503
    after_bytes: int = 0
    seconds: float = 0.0
    fits: Callable[[Request], bool] = field(default=lambda _: True)


class FaultProxy:
    """See the module."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.latency_s = 0.0
        self.requests: list[Request] = []
        self.on_request: Callable[[int, Request], object] = lambda _number, _request: None
        self._faults: list[Fault] = []
        self._refused_until = 0.0
        self._lock = threading.Lock()
        self._server = _Server(self)
        host, port = self._server.server_address[:2]
        self.url = f"http://{host!s}:{port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(self, times: int, *, status: int = 503, **fits: Any) -> None:
        self._add(Fault("fail", times, status=status), **fits)

    def cut(self, times: int, *, after_bytes: int = 0, **fits: Any) -> None:
        self._add(Fault("cut", times, after_bytes=after_bytes), **fits)

    def lose_answer(self, times: int, **fits: Any) -> None:
        self._add(Fault("lose", times), **fits)

    def stall(self, times: int, *, seconds: float, **fits: Any) -> None:
        self._add(Fault("stall", times, seconds=seconds), **fits)

    def refuse_for(self, seconds: float) -> None:
        self._refused_until = time.monotonic() + seconds

    def heal(self) -> None:
        """Forget all faults that are left."""
        with self._lock:
            self._faults.clear()
        self._refused_until = 0.0

    def _add(self, fault: Fault, *, method: str = "", path_part: str = "") -> None:
        fault.fits = lambda request: request.method.startswith(method) and path_part in request.path
        with self._lock:
            self._faults.append(fault)

    def fault_of(self, request: Request) -> Fault | None:
        """Note a request, and find what is to be done to it."""
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
            fault = next((fault for fault in self._faults if fault.times > 0 and fault.fits(request)), None)
            if fault is not None:
                fault.times -= 1
        self.on_request(number, request)
        if self.latency_s:
            time.sleep(self.latency_s)
        return fault

    def refuses(self) -> bool:
        return time.monotonic() < self._refused_until


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return not self.proxy.refuses()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        upstream = self.server.proxy.upstream
        self.backend = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=120)

    def finish(self) -> None:
        self.backend.close()
        super().finish()

    def _serve(self) -> None:
        proxy = self.server.proxy
        if proxy.refuses():
            self._hang_up()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, self.path, len(body), dict(self.headers.items()))
        fault = proxy.fault_of(request)
        if fault is not None and fault.kind == "stall":
            time.sleep(fault.seconds)
        if fault is not None and fault.kind == "fail":
            request.status = fault.status
            self._made_up(fault.status)
            return
        answer = self._ask(request, body)
        if fault is not None and fault.kind == "lose":
            answer.read()
            self._hang_up()
            return
        request.status = answer.status
        self._pass_on(answer, fault.after_bytes if fault is not None and fault.kind == "cut" else None)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 (names that the base class looks for)

    def _ask(self, request: Request, body: bytes) -> http.client.HTTPResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OF_ONE_CONNECTION}
        for last_try in (False, True):
            try:
                self.backend.request(request.method, request.path, body=body, headers=headers)
                return self.backend.getresponse()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                self.backend.close()  # the server closed it between two requests
                if last_try:
                    raise
        raise AssertionError("unreachable")

    def _made_up(self, status: int) -> None:
        text = b"<Error><Code>InjectedFault</Code><Message>by the test</Message></Error>"
        self.send_response(status)
        self.send_header("Content-Length", str(0 if self.command == "HEAD" else len(text)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _pass_on(self, answer: http.client.HTTPResponse, after_bytes: int | None) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _OF_ONE_CONNECTION | {"content-length"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length")
        pieces = iter(lambda: answer.read(_BLOCK_BYTES), b"")
        if length is None:  # chunked by the server: whole, so that its length is known
            pieces = iter([b"".join(pieces)])
            whole = next(pieces)
            length, pieces = str(len(whole)), iter([whole])
        self.send_header("Content-Length", length)
        self.end_headers()
        left = after_bytes
        for piece in pieces:
            if left is not None and len(piece) >= left:
                self.wfile.write(piece[:left])
                self._hang_up()
                return
            left = None if left is None else left - len(piece)
            self.wfile.write(piece)
        if left is not None:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def log_message(self, *args: Any) -> None:
        return


def main() -> None:
    with FaultProxy(sys.argv[1]) as proxy:
        proxy.latency_s = float(sys.argv[2])
        print(proxy.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
