"""Ray, asked from a process of its own: a head of nothing would keep this one waiting for minutes, or end it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from pea.config import Config
from pea.plurals import count_of
from pea.storage.location import Location
from stages.diagnosis.finding import Finding, without_secrets
from stages.diagnosis.libraries import version

PATIENCE_S = 60.0
_SKEW_S = 5.0


def look_at_ray(config: Config | None, asked: str | None, places: dict[str, Location]) -> Iterator[Finding]:
    """Whether Ray is there and, where a cluster is named, what its nodes say. ``asked``: on the command line."""
    installed = version("ray")
    if installed is None:
        yield Finding("ray", "problem", "not installed, and `pea cache` runs on it", "pip install 'pea-cache[cache]'")
        return
    address = asked or (config and config.cache.run.ray_address) or os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        yield Finding("ray", "ok", f"ray {installed}; no cluster is named: `pea cache` starts Ray on this machine")
        return
    yield from _ask(address, places)


def _ask(address: str, places: dict[str, Location]) -> Iterator[Finding]:
    command = [sys.executable, "-m", "stages.cluster.diagnosis", address]
    asked = json.dumps({name: str(place.resolve()) for name, place in places.items()})
    remedy = "Start the cluster, or correct the address (cache.run.ray_address, RAY_ADDRESS, --ray-address)."
    try:
        done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        yield Finding("ray", "problem", f"{address} gave no answer within {PATIENCE_S:.0f} s", remedy)
        return
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield Finding("ray", "problem", f"{address} cannot be asked: {without_secrets(last)}", remedy)
        return
    if "refusal" in answer:  # in our words, with the address and a remedy
        yield Finding("ray", "problem", answer["refusal"])
        return
    if "error" in answer:
        yield Finding("ray", "problem", f"{address}: {answer['error']}", remedy)
        return
    yield from findings_of(address, answer["here"], answer["nodes"], places)


def findings_of(
    address: str, here: dict[str, Any], nodes: Sequence[dict[str, Any]], places: dict[str, Location]
) -> Iterator[Finding]:
    """What the nodes' answers mean. A node's: see ``stages.cluster.diagnosis.look``."""
    silent = [f"{node['node']} ({node['silent']})" for node in nodes if "silent" in node]
    said = [node for node in nodes if "silent" not in node]
    cpus, gpus = (sum(node[kind] for node in nodes) for kind in ("cpus", "gpus"))
    what = f"{address}: {count_of(len(nodes), 'node')}, {count_of(cpus, 'CPU')}, {count_of(gpus, 'GPU')}"
    yield Finding("ray", "ok", what)
    if silent:
        remedy = "Look at `ray status`: they may be busy, starting, or without this program."
        yield Finding("ray", "warning" if said else "problem", f"no answer from {', '.join(silent)}", remedy)
    for node in said:
        yield from _node(here, node, places)


def _node(here: dict[str, Any], node: dict[str, Any], places: dict[str, Location]) -> Iterator[Finding]:
    name, healthy = f"node {node['node']}", True
    differing = [f"{key} {node['versions'].get(key)} instead of {value}" for key, value in here["versions"].items()
                 if node["versions"].get(key) != value]  # fmt: skip
    if differing:
        healthy = False
        yield Finding(name, "warning", "; ".join(differing), "Install the same versions everywhere.")
    if abs(node["clock_ahead_s"]) - node["clock_error_s"] > _SKEW_S:
        healthy = False
        off = f"its clock is {node['clock_ahead_s']:+.1f} s from this machine's"
        yield Finding(name, "warning", off, "Set both by NTP: leases expire by the clock.")
    for place, view in node["places"].items():
        if view != "same":
            healthy = False
            yield Finding(
                name,
                "problem",
                f"{place} ({places[place]}): {view}",
                "Mount the same storage at the same path on every node, or use a bucket.",
            )
    if healthy:
        yield Finding(
            name, "ok", f"same versions, same view of {', '.join(node['places'])}, clock within {_SKEW_S:g} s"
        )
