"""What Ray's own metrics say of a caching run."""

from __future__ import annotations

from typing import Any

import pytest

from pea.cache import PartPlan
from pea.storage import Location
from stages.cluster import metrics
from stages.cluster.retries import Job


def test_tars_are_counted_by_state(monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[tuple[str, str], float] = {}

    class Recorded:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
            assert description.endswith(".") and tag_keys[0] == "corpus"
            self.name = name

        def set(self, value: float, tags: dict[str, Any]) -> None:
            assert tags["corpus"] == "parallel"
            values[self.name, tags.get("state", "")] = value

    monkeypatch.setattr(metrics, "Gauge", Recorded)
    jobs = [
        Job(PartPlan(name, "p000", "whole", 0, 3, ()), Location.parse(f"/{name}.tar"), max_tries=2) for name in "abcd"
    ]
    jobs[0].num_done, jobs[1].num_done = 5, 2
    jobs[2].error = jobs[3].error = "bad"
    metrics.RunMetrics("parallel").update(jobs, {jobs[1], jobs[3]})
    assert values == {
        ("pea_samples", ""): 7, ("pea_records", ""): 21,
        ("pea_tars", "open"): 2, ("pea_tars", "failed"): 1, ("pea_tars", "finished"): 1,
    }  # fmt: skip
