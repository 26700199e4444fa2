"""What the nodes of a Ray cluster say of themselves: versions, clock, and whether they see the same storage.

Run by ``pea doctor`` as ``python -m stages.cluster.diagnosis ADDRESS``, with the places to look at (name -> path or
URL) as JSON on its input; it answers in one line of JSON.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import sys
import time
from importlib import metadata
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pea.errors import PeaError
from pea.storage.location import Location
from stages.cluster.session import first_line, join

_NODE_S = 20.0
_LIBRARIES = ("pea-cache", "ray", "torch", "diffusers", "transformers", "zarr", "numpy")


def versions() -> dict[str, str]:
    """Of what the caching stage's answers and messages depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def look(tokens: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """On a node: versions, time, and each place's view. ``tokens``: name -> (file, what the asking machine wrote)."""
    return {"versions": versions(), "time": time.time(), "places": {n: _view(*token) for n, token in tokens.items()}}


def _view(file: str, expected: str) -> str:
    """``same``, or in which way another storage is seen."""
    place = Location.parse(file)
    try:
        got = place.read_text()
    except FileNotFoundError:
        there = "another storage is mounted there" if _exists(place.parent) else "the folder is not there"
        return f"does not see what this machine wrote ({there})"
    except (PeaError, OSError, ValueError) as error:
        return f"cannot be read: {' '.join(str(error).split())}"
    return "same" if got == expected else "sees another file under the same name"


def _exists(place: Location) -> bool:
    try:
        return place.exists()
    except (PeaError, OSError):
        return False


def ask_nodes(tokens: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """What each living node of the joined cluster answers, or that it is silent."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    warming = [_ask(node, tokens) for node in nodes]  # all at once: a first worker takes seconds to start
    deadline = time.monotonic() + _NODE_S
    return [_answer(node, first, tokens, deadline) for node, first in zip(nodes, warming, strict=True)]


def _ask(node: dict[str, Any], tokens: dict[str, tuple[str, str]]) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(look).remote(tokens)


def _answer(node: dict[str, Any], first: Any, tokens: dict[str, tuple[str, str]], deadline: float) -> dict[str, Any]:
    """What a node says when it is asked again, its worker warm: so the way there and back is short."""
    resources = node.get("Resources", {})
    known = {"node": node["NodeManagerHostname"] or node["NodeManagerAddress"]}
    known |= {"cpus": resources.get("CPU", 0), "gpus": resources.get("GPU", 0)}
    try:
        ray.get(first, timeout=max(0.1, deadline - time.monotonic()))
        sent = time.time()
        said = ray.get(_ask(node, tokens), timeout=_NODE_S)
        one_way = (time.time() - sent) / 2
        return known | said | {"clock_ahead_s": said["time"] - sent - one_way, "clock_error_s": one_way}
    except RayTaskError as error:
        return known | {"silent": str(error).strip().splitlines()[-1][:200]}
    except TimeoutError:
        return known | {"silent": f"nothing within {_NODE_S:.0f} s"}
    except RayError as error:
        return known | {"silent": " ".join(str(error).split())[:200]}


def leave_tokens(places: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Write a small file into each place, or as near above as a folder is."""
    tokens = {}
    for name, text in places.items():
        place = Location.parse(text)
        while place.is_local and not place.is_folder():
            place = place.parent
        file, token = place / f".pea-doctor-{secrets.token_hex(6)}", secrets.token_hex(16)
        try:
            file.write_text(token)
        except (PeaError, OSError):
            continue  # that it cannot be written is a finding of its own
        tokens[name] = (str(file), token)
    return tokens


def main() -> int:
    """Ask, and answer in one line of JSON."""
    places = json.loads(sys.stdin.read())
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    answer: dict[str, Any]
    tokens: dict[str, tuple[str, str]] = {}
    try:
        join(sys.argv[1])
        tokens = leave_tokens(places)
        answer = {"here": {"versions": versions()}, "nodes": ask_nodes(tokens)}
    except PeaError as error:
        answer = {"refusal": first_line(error)}
    except (RayError, OSError, RuntimeError, ValueError) as error:
        answer = {"error": first_line(error)[:300]}
    finally:
        for file, _ in tokens.values():
            Location.parse(file).delete()
    print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
