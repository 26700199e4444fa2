"""Starting, joining and missing Ray."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from pea.config import Config
from pea.errors import CacheError
from stages.cluster import session as module
from stages.cluster.session import HEAD_PATIENCE_S, LOCAL_PATIENCE_S, RaySession, join
from tests.ray_processes import free_port
from tests.stages.test_cache_teacher import with_workers

HEAD, OWN = ("10.0.0.1", 6379), ("10.0.0.2", 4000)


def test_a_local_ray_has_cpus_for_all_actors(fresh_run: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", lambda **options: asked.update(options))
    RaySession(with_workers(fresh_run, num_actors=1001, num_cpus_per_actor=0.5).cache.run)._join_or_start()
    assert asked["num_cpus"] == 501
    assert (asked["_node_ip_address"], asked["include_dashboard"]) == ("127.0.0.1", False)


@pytest.mark.slow
def test_an_address_of_nothing_is_said_within_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOIN_PATIENCE_S", 1.0)
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(CacheError, match=f"{address}: no Ray cluster answers; got no answer within 1 s. Correct "):
        join(address)


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:80", "127.0.0.1:port"])
def test_an_address_that_is_none_is_said(address: str) -> None:
    with pytest.raises(CacheError, match="no Ray cluster answers"):
        join(address)


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001"])
def test_a_url_is_no_address_of_a_head(address: str) -> None:
    with pytest.raises(CacheError, match=r"not the address of a head; expected HOST:6379, or auto .* `ray job submit`"):
        join(address)


def test_a_token_that_is_missing_is_said_before_ray_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(CacheError, match=f"asks for its token; got RAY_AUTH_MODE=token without .*, and no .* {file}"):
        join("127.0.0.1:80")
    file.write_text("0" * 64)
    monkeypatch.setattr(module, "JOIN_PATIENCE_S", 0.0)
    with pytest.raises(CacheError, match="no Ray cluster answers"):
        join("127.0.0.1:80")


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Something that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
def test_an_address_of_something_else_is_said_within_a_minute(silent_server: str) -> None:
    began = time.monotonic()
    with pytest.raises(CacheError, match="no Ray cluster answers; got RpcError: Timed out"):
        join(silent_server)
    assert time.monotonic() - began < 60


@pytest.fixture
def session(fresh_run: Config, monkeypatch: pytest.MonkeyPatch) -> RaySession:
    """One that has joined a cluster whose head and raylet answer, or are silent as `silent` says."""
    session = RaySession(fresh_run.cache.run)
    session._head, session._own = HEAD, OWN
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "a", "Alive": True}, {"NodeID": "b", "Alive": False}])
    return session


class Silence:
    """Who does not answer, at what time."""

    def __init__(self) -> None:
        self.of: set[tuple[str, int]] = set()
        self.now = 1000.0

    def answers(self, address: tuple[str, int]) -> bool:
        return address not in self.of

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Silence:
    silence = Silence()
    monkeypatch.setattr(module, "_answers", silence.answers)
    monkeypatch.setattr(module.time, "monotonic", silence.monotonic)
    return silence


@pytest.mark.parametrize(("who", "patience_s"), [(HEAD, HEAD_PATIENCE_S), (OWN, LOCAL_PATIENCE_S)])
def test_a_lost_head_is_one_line(
    session: RaySession, silence: Silence, who: tuple[str, int], patience_s: float
) -> None:
    assert [node["NodeID"] for node in session.nodes() or ()] == ["a"]
    silence.of.add(who)
    silence.now += patience_s - 1
    assert session.nodes() is None
    silence.of.clear()
    assert session.nodes(), "it is back"
    silence.of.add(who)
    silence.now += patience_s + 1
    with pytest.raises(
        CacheError, match=rf"{who[0]}:{who[1]}: the head of the Ray cluster, or Ray on this machine, is"
    ):
        session.nodes()


def test_a_head_that_takes_connections_and_says_nothing_is_lost_too(
    session: RaySession, silence: Silence, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert session.nodes()
    monkeypatch.setattr(module, "_within", lambda *_: None)
    silence.now += HEAD_PATIENCE_S + 1
    with pytest.raises(CacheError, match="is gone"):
        session.nodes()


LISTENING = """
import ray
from stages.cluster import session_folder
from stages.cluster.session import start_local
folder = start_local(2)

@ray.remote(num_cpus=1)
class Actor:
    def ping(self):
        pass

actor = Actor.remote()
ray.get(actor.ping.remote())
print("ready", flush=True)
input()
ray.shutdown()
session_folder.clear(folder)
"""


@pytest.fixture(scope="module")
def local_ray() -> Iterator[subprocess.Popen[str]]:
    """A process that has started a Ray of its own, with an actor."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.communicate("\n", timeout=120)


@pytest.mark.slow
def test_nobody_else_reaches_the_sockets_and_logs(local_ray: subprocess.Popen[str]) -> None:
    [raylet] = [each for each in psutil.Process(local_ray.pid).children(recursive=True) if each.name() == "raylet"]
    [socket_path] = [word.partition("=")[2] for word in raylet.cmdline() if word.startswith("--raylet_socket_name=")]
    closed = [folder for folder in Path(socket_path).parents if folder.stat().st_mode & 0o077 == 0]
    assert closed and closed[-1].stat().st_uid == os.getuid()


@pytest.mark.slow
def test_a_ray_that_we_start_listens_on_loopback_alone(local_ray: subprocess.Popen[str]) -> None:
    found = {}
    for process in [psutil.Process(local_ray.pid), *psutil.Process(local_ray.pid).children(recursive=True)]:
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                found[f"{process.name()} {connection.laddr.ip}:{connection.laddr.port}"] = connection.laddr.ip
    assert {name.split()[0] for name in found} >= {"gcs_server", "raylet"}, "the test looks where Ray listens"
    assert not {name for name, ip in found.items() if ip.removeprefix("::ffff:") not in ("127.0.0.1", "::1")}


INTRUDING = """
import sys
import ray
from stages.cluster.session import join
try:
    join(sys.argv[1])
    print(ray.get(ray.remote(lambda: "in").options(num_cpus=0).remote()))
except Exception as error:
    print("refused", type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("token", ["", "0" * 64, "ours"])
def test_a_ray_that_we_start_lets_in_who_has_its_token(
    local_ray: subprocess.Popen[str], token: str, tmp_path: Path
) -> None:
    [head] = [each for each in psutil.Process(local_ray.pid).children(recursive=True) if each.name() == "gcs_server"]
    [port] = {each.laddr.port for each in head.net_connections("inet") if each.status == psutil.CONN_LISTEN}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["HOME"] = str(tmp_path)  # where Ray looks for a token of the user's
    if token:
        ours = head.environ()["RAY_AUTH_TOKEN"]
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": ours if token == "ours" else token}
    tried = subprocess.run(
        [sys.executable, "-c", INTRUDING, f"127.0.0.1:{port}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (tried.stdout.strip().splitlines()[-1:] == ["in"]) is (token == "ours"), tried.stdout + tried.stderr
    got = {"": "none: RAY_AUTH_MODE is not token", "0" * 64: "another one"}.get(token, "in")
    assert got in tried.stdout and (token == "ours") is ("the Ray cluster asks for its token" not in tried.stdout)


def test_a_machine_too_busy_to_start_ray_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(**options: Any) -> None:
        raise Exception("The current node timed out during startup.")  # as Ray's own code raises it

    monkeypatch.setattr(ray, "init", slow)
    with pytest.raises(CacheError, match=r"cannot start or join Ray.*timed out during startup.*Run the same command"):
        module._init("local")
