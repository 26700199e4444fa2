"""The walk over requests finds what careless writers lose in a bucket, and nothing in a careful one."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("moto", reason="takes an S3 server on the loopback (moto)")
pytest.importorskip("tests.storage.proxy", reason="takes the proxy of the storage's tests")

from tests.faults.interposer import reason_to_skip
from tests.faults.request_walk import KINDS, request_walk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip())),
]
OBJECTS = "tests.faults.object_scenarios"


def test_a_careful_writer_loses_nothing_and_outlasts_what_passes() -> None:
    with request_walk(f"{OBJECTS}:PUBLISHED") as walk:
        methods = Counter(request.method for request in walk.requests)
        assert methods["PUT"] == 4 and methods["GET"] + methods["HEAD"] >= 4
        assert len(walk.faults(*KINDS)) == len(KINDS) * len(walk.requests)
        report = walk.run(walk.faults(*KINDS, sample=40, seed=1))
    assert report.findings == [] and report.num_steps == 40 and report.num_unreached == 0, str(report)


def test_carelessness_is_found() -> None:
    with request_walk(f"{OBJECTS}:RECORD_FIRST") as walk:
        report = walk.run(walk.faults("kill"))
        found = Counter(finding.what for finding in report.findings)
        assert found["between"] >= 3 and found["different"] >= 3 and set(found) == {"between", "different"}, str(report)
        assert "PUT" in str(report)
