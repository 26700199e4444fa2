"""English descriptions of culture images, joined to the samples that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pea.config import Config, DescribedConfig
from pea.corpus.corpus_names import CorpusName
from pea.corpus.reasons import NO_DESCRIPTION
from pea.corpus.samples import Rejected, Sample


class Descriptions:
    """Where the descriptions are: in tables beside the tars, or among the captions of the json."""

    def __init__(self, config: DescribedConfig) -> None:
        """Raises CorpusError where there are to be tables and are none."""
        self._language, self._tables = config.language, config.read_tables()

    def described(self, sample: Sample, language: str) -> Sample | Rejected:
        """The sample with its description as what the teacher reads, in ``language``; left out where it has none.

        Raises:
            CorpusError: a table cannot be read.
        """
        captions = dict(sample.captions)
        if self._tables is not None:
            none: Mapping[str, str] = {}
            found = self._tables.of_tar(sample.tar) if self._tables.has(sample.tar) else {}
            captions[language] = found.get(sample.key, none).get(self._language, "")
        if not captions.get(language):
            return Rejected(sample.tar, sample.key, NO_DESCRIPTION)
        captions.pop(self._language, None)
        return replace(sample, captions=captions)


def descriptions_for(config: Config, corpus: CorpusName) -> Descriptions | None:
    """The descriptions of a corpus that lives on them; None: it has captions.

    Raises:
        CorpusError: there are to be tables of them, and are none.
    """
    described = config.corpora.described
    return Descriptions(described) if corpus == "described" and described is not None else None
