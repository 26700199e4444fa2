"""The crash walk over requests: what a bucket holds when a request goes wrong, or the client dies at it.

    with request_walk("tests.faults.cache_scenarios:FILL") as walk:
        report = walk.run(walk.faults("kill", "lose", sample=50))

The scenario's functions get a URL in place of a folder, and reach the server through the environment. The disturbed
command talks to it through a proxy, everything else directly.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tests.faults.report import Finding, Judge, Report, without_unique_parts
from tests.faults.runners import Ended, Forked
from tests.object_server import ObjectServer, running
from tests.storage.proxy import Fault, FaultProxy, Request

RequestKind = Literal["kill", "fail", "down", "deny", "lose", "cut", "stall", "refuse"]
KINDS: tuple[RequestKind, ...] = get_args(RequestKind)
_PASSING = ("fail", "lose", "stall", "refuse")
"""Kinds that a client gets over by trying again. (A cut answer it may give up in one line: object stores' clients do,
where a listing or the text of an error breaks off.)"""
_STALL_S, _REFUSAL_S = 3.0, 0.3


@dataclass(frozen=True)
class RequestFault:
    """What happens at one request."""

    kind: RequestKind
    """``kill``: the client dies before it. ``fail``: it is answered with an error, once. ``down``: it and all later
    ones are. ``deny``: it is forbidden. ``lose``: it is carried out, and the answer lost. ``cut``: the answer breaks
    off. ``stall``: it is answered late. ``refuse``: no connection is taken for a while."""
    at: int
    """The number of the request, from 1."""
    status: int = 503
    """Answer of ``fail`` and ``down``."""

    def __str__(self) -> str:
        return f"{self.kind}{f' {self.status}' if self.kind == 'fail' else ''} at {self.at}"


class StrikingProxy(FaultProxy):
    """Does one fault at one request of a client."""

    def __init__(self, upstream: str, kill_client: Callable[[], None]) -> None:
        super().__init__(upstream)
        self._kill_client = kill_client
        self._fault: RequestFault | None = None
        self.struck: Request | None = None

    def begin(self, fault: RequestFault | None) -> None:
        """Count from 1 again."""
        self.heal()
        with self._lock:
            self.requests.clear()
            self._fault, self.struck = fault, None

    def fault_of(self, request: Request) -> Fault | None:
        """Decide by the request's number."""
        with self._lock:
            self.requests.append(request)
            number, fault = len(self.requests), self._fault
            later = fault is not None and fault.kind == "down" and number > fault.at
            if fault is None or not (later or number == fault.at):
                return None
            self.struck = self.struck or request
        if fault.kind == "kill":
            self._kill_client()
            return Fault("fail", 1)
        if fault.kind == "refuse":
            self.refuse_for(_REFUSAL_S)
            return Fault("fail", 1)
        if fault.kind == "deny":
            return Fault("fail", 1, status=403)
        kind = {"down": "fail", "fail": "fail"}.get(fault.kind, fault.kind)
        return Fault(kind, 1, status=fault.status, after_bytes=1, seconds=_STALL_S)


class RequestWalk:
    """The walks over one scenario in a bucket."""

    def __init__(self, runner: Forked, server: ObjectServer, proxy: StrikingProxy) -> None:
        """Prepare the start, and run the command undisturbed.

        Raises:
            AssertionError: it does not end well, or asks nothing of the server.
        """
        self._runner, self._server, self._proxy = runner, server, proxy
        self._bucket = _Objects(server)
        self._num_places = 0
        assert self._run("prepare", "start").status == 0, "the scenario cannot be prepared in a bucket"
        ended, place = self._disturbed(None)
        assert ended.status == 0, f"undisturbed, the command ends with {ended.status}: {ended.output}"
        self.requests = list(proxy.requests)
        assert self.requests, "the command asks nothing of the server"
        result = self._run("result", place)
        assert result.status == 0, f"what it left cannot be read ({result.status}): {result.output}"
        self.expected, self._names = result.value, self._bucket.names(place)

    def faults(self, *kinds: RequestKind, sample: int | None = None, seed: int = 0) -> list[RequestFault]:
        """Every fault of some kinds, in an order by the seed; ``sample``: no more than so many."""
        chance = random.Random(seed)
        numbers = range(1, len(self.requests) + 1)
        found = [RequestFault(kind, number, chance.choice([500, 503])) for kind in kinds for number in numbers]
        chance.shuffle(found)
        return found[:sample]

    def run(
        self,
        faults: Sequence[RequestFault],
        *,
        seconds: float | None = None,
        progress: Callable[[Report], object] = lambda _: None,
    ) -> Report:
        """Take a step for each fault, or for as many as there is time for."""
        report, begun = Report(len(self.requests), len(faults)), time.monotonic()
        for fault in faults:
            if seconds is not None and time.monotonic() - begun > seconds:
                break
            self._step(fault, report)
            report.num_steps += 1
            report.seconds = time.monotonic() - begun
            progress(report)
        return report

    def _step(self, fault: RequestFault, report: Report) -> None:
        ended, place = self._disturbed(fault)
        struck = self._proxy.struck
        shown = struck and f"{struck.method} {struck.path}"
        report.num_unreached += struck is None
        judge = Judge(lambda call: self._run(call, place), self.expected, report, fault, shown, f"{place}/")
        if fault.kind in _PASSING and ended.status:
            report.findings.append(Finding(fault, shown, "gave up", ended.output.strip()[-400:]))
        if fault.kind != "kill":
            judge.politeness(ended)
        if judge.what_is_left(over=ended.status == 0):
            report.litter.update((self._bucket.names(place) - self._names).keys())
        self._bucket.delete(place)

    def _disturbed(self, fault: RequestFault | None) -> tuple[Ended, str]:
        self._num_places += 1
        place = f"step{self._num_places}"
        self._bucket.copy("start", place)
        self._proxy.begin(fault)
        ended = self._run("command", place, self._proxy.url)
        self._proxy.heal()
        return ended, place

    def _run(self, call: Any, place: str, url: str | None = None) -> Ended:
        where = f"s3://{self._bucket.name}/{place}"
        return self._runner.run(call, where, environment=self._server.environment(url))


class _Objects:
    """The bucket, seen without the product."""

    def __init__(self, server: ObjectServer) -> None:
        import boto3

        self.name = server.new_bucket()
        keys = {"aws_access_key_id": "tester", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        self._bucket = boto3.resource("s3", endpoint_url=server.url, **keys).Bucket(self.name)

    def copy(self, start: str, place: str) -> None:
        for each in self._bucket.objects.filter(Prefix=f"{start}/"):
            source = {"Bucket": self.name, "Key": each.key}
            self._bucket.copy(source, place + each.key.removeprefix(start))

    def delete(self, place: str) -> None:
        self._bucket.objects.filter(Prefix=f"{place}/").delete()

    def names(self, place: str) -> Counter[str]:
        found = self._bucket.objects.filter(Prefix=f"{place}/")
        return Counter(without_unique_parts(each.key.removeprefix(f"{place}/")) for each in found)


@contextmanager
def request_walk(scenario: str) -> Iterator[RequestWalk]:
    """A walk in forks of a warm process, on an S3 server of its own."""
    scratch, server = tempfile.TemporaryDirectory(prefix="faults-"), running()
    with scratch as folder, server as running_server, Forked(scenario, Path(folder)) as runner:

        def kill_client() -> None:
            with suppress(ProcessLookupError):
                os.killpg(int(runner.process_file.read_text()), signal.SIGKILL)

        with StrikingProxy(running_server.url, kill_client) as proxy:
            yield RequestWalk(runner, running_server, proxy)
