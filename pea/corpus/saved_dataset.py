"""The folder that Hugging Face ``datasets`` saves a data set to.

Copies of its rows, which the library keeps for itself as ``cache-*.arrow``, lie beside the files of the data set.
"""

from __future__ import annotations

import json

from pea.errors import CorpusError, LocationMissingError
from pea.file_names import DATASET_STATE
from pea.storage.location import Location

_MAX_BYTES = 16 << 20
_INDICES = "_indices_data_files"


def named_by_state(folder: Location) -> set[str] | None:
    """Names of the files that hold the rows; None: not such a folder.

    Raises:
        CorpusError: the folder does not say it as the library does, or its rows are chosen by a file of indices.
    """
    place = folder / DATASET_STATE
    try:
        if place.status().size_bytes > _MAX_BYTES:
            return None
        state = json.loads(place.read_bytes())
    except (LocationMissingError, ValueError, RecursionError):
        return None
    if not isinstance(state, dict) or "_data_files" not in state:
        return None
    if state.get(_INDICES):
        remedy = "Save it anew: dataset.flatten_indices().save_to_disk(FOLDER)."
        raise CorpusError("a data set whose rows are chosen by indices", where=place, remedy=remedy)
    try:
        return {str(each["filename"]) for each in state["_data_files"]}
    except (TypeError, KeyError):
        remedy = "Save it anew: dataset.to_parquet(FILE)."
        raise CorpusError("not the state of a saved data set", where=place, remedy=remedy) from None
