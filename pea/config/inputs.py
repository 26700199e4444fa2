"""Prompts, judge and scorers of a configuration that are URLs: fetched, so that what reads them finds paths.

Teacher and encoders need no such step: ``teacher.folder`` and ``student.encoders`` are folders of this machine.
"""

from __future__ import annotations

from typing import Any

from pea.config.root import Config
from pea.storage.hub import local_folder


def with_inputs_fetched(config: Config) -> Config:
    """The configuration with a copy on this machine in place of each URL that scoring reads.

    What is not there yet becomes a path where nothing is. ``run_dir``, caches, tars and models stay as they are.

    Raises:
        StorageError: a store cannot be read, or there is no room for a copy.
    """
    evaluate = config.evaluate
    changes: dict[str, Any] = {
        name: local_folder(place) for name in ("judge", "clip") if (place := getattr(evaluate, name)) is not None
    }
    given = evaluate.scorers.model_dump(exclude_none=True)
    scorers = {name: local_folder(getattr(evaluate.scorers, name)) for name in given}
    changes["scorers"] = evaluate.scorers.model_copy(update=scorers)
    prompts = {name: local_folder(place) for name, place in evaluate.prompts.items()}
    return config.model_copy(update={"evaluate": evaluate.model_copy(update={"prompts": prompts, **changes})})
