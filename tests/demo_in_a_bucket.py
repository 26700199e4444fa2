"""The demo with everything it makes in a bucket: on an S3 server of its own on the loopback, which ends with it.

    python -m tests.demo_in_a_bucket [section.key=value ...]

The report and the metrics are copied to `runs/demo-s3`, since the bucket ends with the server.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from pea.storage import Location
from pea.storage.transfer import copy_file
from tests.object_server import running

_ROOT = Path(__file__).resolve().parents[1]
_KEPT = ("report.html", "metrics.json")


def main(overrides: list[str]) -> int:
    """Run the pipeline; returns its exit code."""
    with running() as server, TemporaryDirectory(prefix="pea-demo-") as work:
        os.environ.update(server.environment(), PEA_WORK_DIR=work)
        run_dir = f"s3://{server.new_bucket()}/demo"
        print(f"run_dir={run_dir} on {server.url}", flush=True)
        command = [sys.executable, "-m", "stages.cli", "run", "pipeline.yaml", f"run_dir={run_dir}", *overrides]
        code = subprocess.run(command, cwd=_ROOT, check=False).returncode
        for name in _KEPT if code == 0 else ():
            copy_file(Location.parse(f"{run_dir}/{name}"), Location.parse(_ROOT / "runs/demo-s3" / name))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
