"""Starting or joining Ray, leaving it, and noticing that it is gone.

A Ray that is started here is this machine's own: it listens on loopback alone and asks everybody for a token.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import ray
from ray._private import ray_constants, services
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError, RayError

from pea.config.cache import CacheRunConfig
from pea.errors import CacheError, PeaError
from stages.cluster import session_folder

Answer = TypeVar("Answer")
_OBJECT_STORE_BYTES = 100 << 20  # only short messages travel through it
_LOOPBACK = "127.0.0.1"
_CONNECT_S = 2.0
JOIN_PATIENCE_S = 10.0
"""For how long a head that does not answer is tried."""
HEAD_PATIENCE_S = 30.0
"""For how long a head may be silent. Ray ends the whole process without a word of ours after 60 s."""
LOCAL_PATIENCE_S = 8.0
"""The same for processes of this machine, which nobody starts again."""
_ANSWER_S = 10.0


class RaySession:
    """Ray, joined or started when it is first needed; left at the end if it was started here."""

    def __init__(self, run: CacheRunConfig) -> None:
        """``run``: address, and how large a Ray to start where there is none."""
        self._run = run
        self._is_open = self._ours = self._is_local = False
        self._folder: Path | None = None
        """Of a Ray that was started here."""
        self._head: tuple[str, int] | None = None
        self._own: tuple[str, int] | None = None
        """Ray's process on this machine."""
        self._heard = time.monotonic()

    @property
    def has_cluster(self) -> bool:
        """Whether there is a cluster to join; a Ray of this machine's own is none."""
        return self._address is not None

    @property
    def _address(self) -> str | None:
        address = self._run.ray_address or os.environ.get("RAY_ADDRESS")
        return None if address == "local" else address or None

    @property
    def about(self) -> str:
        """Which Ray this is, for the one who waits for it."""
        return "Ray on this machine" if self._address is None else f"Ray at {self._address}"

    def open(self) -> None:
        """Join or start Ray, unless that has been done.

        Raises:
            CacheError: Ray cannot be started, or there is none at the address.
        """
        if self._is_open:
            return
        if not ray.is_initialized():
            self._join_or_start()
            self._ours = True
        self._is_open = True
        self._head = services.extract_ip_port(ray.get_runtime_context().gcs_address)
        self._heard = time.monotonic()

    def _join_or_start(self) -> None:
        run = self._run
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        if self._address is not None:
            join(self._address)
        else:
            self._folder = start_local(max(os.cpu_count() or 1, math.ceil(run.num_actors * run.num_cpus_per_actor)))
            self._is_local = True

    def nodes(self) -> list[dict[str, Any]] | None:
        """Ray's living nodes; None while the head does not answer.

        Raises:
            CacheError: it, or Ray's process on this machine, has been silent for so long that nothing will be done.
        """
        silent = [address for address in (self._head, self._own) if address and not _answers(address)]
        found = None if silent else _within(_ANSWER_S, ray.nodes)
        if found is not None:
            self._heard = time.monotonic()
            return self._living(found)
        passed = time.monotonic() - self._heard
        if passed > (LOCAL_PATIENCE_S if self._is_local or self._own in silent else HEAD_PATIENCE_S):
            raise CacheError(
                "the head of the Ray cluster, or Ray on this machine, is gone",
                where=", ".join(f"{host}:{port}" for host, port in silent) or "the head",
                got=f"no answer for {passed:.0f} s",
                remedy="Start it again, then run the same command: finished shards are kept.",
            )
        return None

    def _living(self, nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self._own is None and self._head is not None:
            here = ray.get_runtime_context().get_node_id()
            self._own = next((_raylet(node) for node in nodes if node["NodeID"] == here), None)
        return [node for node in nodes if node["Alive"]]

    def close(self) -> None:
        """Leave or end the Ray that was joined or started here."""
        if self._ours:
            ray.shutdown()
        if self._folder is not None:
            session_folder.clear(self._folder)


def start_local(num_cpus: int) -> Path:
    """Start a Ray of this machine's own: on loopback, with a token that only this process and its children have.

    Returns its folder, which is closed to other users; to be cleared (``session_folder``) after Ray is shut down.

    Raises:
        CacheError: it does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    stay_on_loopback()
    try:
        folder = session_folder.make()
    except OSError as error:
        raise CacheError("cannot make a folder for Ray", got=error, remedy="Make room, or set RAY_TMPDIR.") from error
    options = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES, "address": "local"}
    _init("local", _node_ip_address=_LOOPBACK, _temp_dir=str(folder), num_cpus=num_cpus, **options)
    return folder


def join(address: str) -> None:
    """Join a running cluster.

    Raises:
        CacheError: there is none at the address, or it asks for another token.
    """
    if "://" in address:
        raise CacheError(
            "not the address of a head",
            where=address,
            expected="HOST:6379, or auto on a machine of the cluster",
            remedy="From elsewhere, use `ray job submit`, which takes the URL of the dashboard (http://HOST:8265).",
        )
    _look_for_token(address)
    _find_head(address)
    _init(address, address=address)


def _look_for_token(address: str) -> None:
    """Where a token is wanted and there is none, Ray would end the process with a stack of its own."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not file.is_file() or not file.read_text(encoding="utf-8").strip():
        raise _other_token(address, f"RAY_AUTH_MODE=token without RAY_AUTH_TOKEN, and no token in {file}")


def _other_token(address: str, got: str) -> CacheError:
    remedy = "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as they were when its head was started."
    return CacheError("the Ray cluster asks for its token", where=address, got=got, remedy=remedy)


def stay_on_loopback() -> None:
    """Let this process take 127.0.0.1 for the machine's address, which Ray replaces by one that others can reach.

    Ray does so by itself on macOS and Windows, and has no public setting for it.
    """
    ray_constants.ENABLE_RAY_CLUSTER = False


def _find_head(address: str) -> None:
    """Ray itself would try for more than five minutes and then end the process."""
    try:
        found = services.canonicalize_bootstrap_address_or_die(address)
        host, port = services.extract_ip_port(found)
    except (ConnectionError, ValueError, OSError) as error:
        raise _no_head(address, error) from error
    given = address.rpartition(":")[0]
    deadline = time.monotonic() + JOIN_PATIENCE_S
    while not _answers((host, port)):
        if given in (_LOOPBACK, "localhost") and _answers((_LOOPBACK, port)):
            stay_on_loopback()
            host = _LOOPBACK
            break
        if time.monotonic() > deadline:
            raise _no_head(address, f"no answer within {JOIN_PATIENCE_S:.0f} s")
        time.sleep(0.5)
    try:
        GcsClient(address=f"{host}:{port}")
    except AuthenticationError as error:
        wants = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
        raise _other_token(address, "another one" if wants else "none: RAY_AUTH_MODE is not token") from error
    except RayError as error:
        raise _no_head(address, first_line(error)) from error


def _no_head(address: str, got: object) -> CacheError:
    remedy = "Correct cache.run.ray_address or RAY_ADDRESS (HOST:6379), or unset them to start a Ray on this machine."
    return CacheError("no Ray cluster answers", where=address, got=got, remedy=remedy)


def _init(where: str, **options: Any) -> None:
    try:
        ray.init(logging_level="ERROR", log_to_driver=False, **options)
    except (Exception, SystemExit) as error:  # Ray has no class of its own for a node that is too slow to start
        remedy = "Run the same command again; on a busy machine, when it has less to do."
        raise CacheError("cannot start or join Ray", where=where, got=first_line(error), remedy=remedy) from error


def _within(seconds: float, ask: Callable[[], Answer]) -> Answer | None:
    """An answer, or None if it takes too long: Ray's own questions to a head that is gone never return."""
    answers: SimpleQueue[Answer] = SimpleQueue()
    threading.Thread(target=lambda: answers.put(ask()), daemon=True).start()
    try:
        return answers.get(timeout=seconds)
    except Empty:
        return None


def _raylet(node: dict[str, Any]) -> tuple[str, int]:
    return node["NodeManagerAddress"], node["NodeManagerPort"]


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


def first_line(error: BaseException) -> str:
    """What happened, in one line."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else "no message"
    return text if isinstance(error, PeaError) else f"{type(error).__name__}: {text}"
