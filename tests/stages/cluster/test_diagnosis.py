"""What the nodes of a cluster say of themselves, and what `pea doctor` makes of it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from pea.storage.location import Location
from stages.cluster import diagnosis
from stages.diagnosis import clusters
from stages.diagnosis.clusters import findings_of, look_at_ray
from stages.diagnosis.finding import Finding
from tests.ray_processes import RayCluster

HERE = {"versions": {"python": "3.11.7", "torch": "2.13.0"}}
NODE: dict[str, Any] = {
    "node": "worker-1",
    "cpus": 4.0,
    "gpus": 1.0,
    "versions": HERE["versions"],
    "places": {"run_dir": "same"},
    "clock_ahead_s": 0.1,
    "clock_error_s": 0.01,
}


def levels(**facts: Any) -> list[str]:
    places = {"run_dir": Location.parse("runs/demo")}
    return [each.level for each in findings_of("head:6379", HERE, [NODE, {**NODE, **facts}], places)][2:]


def test_a_node_like_this_one_is_one_line() -> None:
    assert levels() == ["ok"]


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        ({"versions": {"python": "3.11.7", "torch": "2.8.0"}}, "warning"),
        ({"versions": {"python": "3.11.7"}}, "warning"),
        ({"clock_ahead_s": -30.0}, "warning"),
        ({"places": {"run_dir": "does not see what this machine wrote (the folder is not there)"}}, "problem"),
    ],
)
def test_a_node_that_differs(facts: dict[str, Any], level: str) -> None:
    assert levels(**facts) == [level]


def test_a_clock_that_cannot_be_told_apart_is_no_finding() -> None:
    assert levels(clock_ahead_s=9.0, clock_error_s=6.0) == ["ok"]


def test_a_silent_node_is_named() -> None:
    silent = {"node": "worker-2", "cpus": 4, "gpus": 0, "silent": "timed out"}
    said = list(findings_of("head:6379", HERE, [NODE, silent], {}))
    assert [each.level for each in said] == ["ok", "warning", "ok"] and "worker-2" in said[1].what
    assert "8 CPUs" in said[0].what, "Ray knows what a node has, whether it answers or not"
    counted, problem = findings_of("head:6379", HERE, [silent], {})
    assert "1 node, 4 CPUs" in counted.what and problem.level == "problem" and "worker-2" in problem.what


def test_a_node_that_is_too_slow_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(*_: object, **__: object) -> None:
        raise ray.exceptions.GetTimeoutError("Get timed out: some object(s) not ready.")

    monkeypatch.setattr(diagnosis.ray, "get", get)
    node = {"NodeManagerHostname": "worker-2", "NodeManagerAddress": "10.0.0.2", "Resources": {"CPU": 4.0}}
    found = diagnosis._answer(node, None, {}, 0.0)
    assert found == {"node": "worker-2", "cpus": 4.0, "gpus": 0, "silent": "nothing within 20 s"}


def _answer(monkeypatch: pytest.MonkeyPatch, stdout: str = "", stderr: str = "", *, late: bool = False) -> Finding:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if late:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        return subprocess.CompletedProcess(command, 1, stdout, stderr)

    monkeypatch.setattr(clusters.subprocess, "run", run)
    (found,) = look_at_ray(None, "head:6379", {})
    return found


def test_a_cluster_that_cannot_be_asked_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in (
        _answer(monkeypatch, late=True),
        _answer(monkeypatch, stderr="Traceback\n  ...\nFatal: no such thing\n"),
        _answer(monkeypatch, stdout="noise\n" + json.dumps({"error": "refused"}) + "\n"),
    ):
        assert found.level == "problem" and "head:6379" in found.what and "\n" not in found.line()
        assert found.remedy is not None and "--ray-address" in found.remedy


def test_a_refusal_in_our_words_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = "head:6379: the Ray cluster asks for its token. Set RAY_AUTH_MODE=token."
    assert _answer(monkeypatch, stdout=json.dumps({"refusal": refusal}) + "\n").line() == f"ray: {refusal}"


def test_without_a_cluster_none_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(clusters.subprocess, "run", lambda *_, **__: pytest.fail("asked"))
    assert [each.level for each in look_at_ray(None, None, {})] == ["ok"]
    monkeypatch.setattr(clusters, "version", lambda _: None)
    assert [each.level for each in look_at_ray(None, None, {})] == ["problem"]


@pytest.mark.slow
def test_an_address_of_nothing_is_told_within_a_minute() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = time.monotonic()
    (found,) = look_at_ray(None, address, {})
    assert found.level == "problem" and address in found.what
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_each_node_of_a_cluster_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "head").mkdir()
    cluster = RayCluster(tmp_path / "head")
    try:
        cluster.add_node(num_cpus=1)
        for name, value in cluster.for_drivers.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "data").mkdir()
        found = list(look_at_ray(None, None, {"run_dir": Location.parse(tmp_path / "data" / "run")}))
    finally:
        cluster.end()
    assert [each.level for each in found] == ["ok", "ok", "ok"], found
    assert "2 nodes, 1 CPU, no GPUs" in found[0].what
    assert all("same view of run_dir" in each.what for each in found[1:])
    assert list((tmp_path / "data").iterdir()) == []
