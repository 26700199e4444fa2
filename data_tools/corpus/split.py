"""The samples of a tar in tars by route, their images as they are stored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from data_tools.corpus.part_writer import new_tar
from data_tools.corpus.tar_items import tar_samples
from pea.corpus.places import Tar

NO_ROUTE = "none"


def split_tar(tar: Tar, routed: Mapping[str, Mapping[str, Any]], folder: Path) -> Counter[str]:
    """Write ``folder/ROUTE/NAME.tar`` for each route that samples have; returns how many each has got.

    ``routed``: key -> row with ``route`` and usable ``captions``. What a json had else stays in it; its former captions
    are under ``captions_before``. Samples without a route, and those that have no row, are not written.

    Raises:
        CorpusError: the tar is damaged.
        DiskFullError: there is no room.
    """
    counts = Counter[str]()
    routes = sorted({str(row["route"]) for row in routed.values()} - {NO_ROUTE})
    with ExitStack() as stack:
        writers = {route: stack.enter_context(new_tar(folder / route / f"{tar.name}.tar")) for route in routes}
        for sample in tar_samples(tar):
            row = routed.get(sample.key)
            if sample.problem or row is None or row["route"] == NO_ROUTE:
                continue
            document = sample.document | {"captions": row["captions"]}
            if sample.document.get("captions") != row["captions"]:
                document["captions_before"] = sample.document.get("captions")
            if "provenance" in row:
                document["provenance"] = row["provenance"]
            data = json.dumps(document, ensure_ascii=False).encode()
            writers[row["route"]].add(sample.key, {sample.extension: sample.image, "json": data})
            counts[row["route"]] += 1
    return counts
