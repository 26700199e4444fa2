"""How far a caching run is, as gauges among Ray's own Prometheus metrics.

Ray gives each node's metrics at its metrics port (`ray start --metrics-export-port`), with the prefix `ray_`:
`ray_pea_samples`, `ray_pea_records` and `ray_pea_tars`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ray.util.metrics import Gauge

from stages.cluster.retries import Job, Tried


class RunMetrics:
    """The gauges of one corpus."""

    def __init__(self, corpus: str) -> None:
        """`corpus`: a tag of every value."""
        self._corpus = corpus
        self._samples = Gauge("pea_samples", "Samples of this run, kept or left out so far.", tag_keys=("corpus",))
        self._records = Gauge("pea_records", "Records of these samples.", tag_keys=("corpus",))
        self._tars = Gauge("pea_tars", "Tars of this run by state.", tag_keys=("corpus", "state"))

    def update(self, jobs: Sequence[Job], open_jobs: Collection[Tried]) -> None:
        """Set the gauges; `open_jobs`: those that are neither finished nor given up."""
        of_corpus = {"corpus": self._corpus}
        failed = sum(bool(job.error) for job in jobs if job not in open_jobs)
        states = {"open": len(open_jobs), "failed": failed, "finished": len(jobs) - len(open_jobs) - failed}
        self._samples.set(sum(job.num_done for job in jobs), of_corpus)
        self._records.set(sum(job.num_done * job.part.num_draws for job in jobs), of_corpus)
        for state, number in states.items():
            self._tars.set(number, of_corpus | {"state": state})
