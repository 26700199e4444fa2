"""The native-language side: text encoder and adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from pea.config.placeholders import SetupPath
from pea.config.section import Section
from pea.storage.hub import local_folder


class AdapterConfig(Section):
    """Size of the adapter (PEA)."""

    hidden_size: Annotated[PositiveInt, Field(le=16_384)] = 1024
    """Width of the hidden layers."""
    num_layers: Annotated[PositiveInt, Field(le=32)] = 2
    """Number of hidden layers."""


class StudentConfig(Section):
    """The native-language side."""

    encoder: SetupPath | tuple[SetupPath, SetupPath]
    """Folder (transformers layout; ``pea import`` makes one of other published forms), or ``org/name@revision``, of the
    frozen native text encoder; or two such, whose states then stand side by side."""
    max_tokens: PositiveInt | None = None
    """Tokens that captions are padded to and cut at. Null: as the encoder was published, within its own limit."""
    hidden_state: int | None = None
    """Which hidden state is read, such as -2 for the last but one. Null: as is usual for the encoder's kind."""
    language: str | tuple[str, ...] = Field(default="zh", min_length=1)
    """Language of the captions that the student reads; of several, every row of every batch draws one."""
    training_language: str | None = None
    """Language of the captions in training, where it is another: with a multilingual encoder, an adapter that saw
    English alone may still follow prompts in `language`. Null: `language`."""
    adapter: AdapterConfig = AdapterConfig()
    """Size of the adapter."""

    @property
    def encoders(self) -> tuple[Path, ...]:
        """Folders of the text encoders on this machine.

        Raises:
            CheckpointError: one cannot be got from the hub.
        """
        return tuple(map(local_folder, self.places))

    @property
    def places(self) -> tuple[Path, ...]:
        """The text encoders as they are named."""
        return self.encoder if isinstance(self.encoder, tuple) else (self.encoder,)

    @property
    def reading(self) -> dict[str, Any]:
        """What is read otherwise than is usual for the encoder's kind, for `reading_of`."""
        return {"max_tokens": self.max_tokens, "hidden_state": self.hidden_state}

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the prompts, the main one first."""
        return (self.language,) if isinstance(self.language, str) else self.language

    @property
    def caption_languages(self) -> tuple[str, ...]:
        """Languages of the captions in training."""
        return (self.training_language,) if self.training_language else self.languages
