"""The teacher and what the adapter learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from pea.config.cache import CacheConfig
from pea.config.placeholders import SetupPath, TarPattern
from pea.config.section import FloatDtype, Section
from pea.corpus.caption_tables import BY_TAR, CaptionTables
from pea.corpus.corpus_names import CORPUS_NAMES, CorpusName
from pea.corpus.rules import DEFAULT_FORMATS, ImageFormat, ReadingRules, TextSource
from pea.errors import CheckpointError, ConfigError
from pea.storage.assembled import assembled_folder
from pea.storage.hub import is_hub_id, local_folder, model_name
from pea.storage.location import Location
from pea.storage.single_file import folder_of_single_file


class TeacherConfig(Section):
    """The frozen diffusion model that is distilled."""

    checkpoint: SetupPath
    """Folder of a diffusers pipeline in the standard layout (``unet/``, ``vae/``, ``text_encoder/``, ...),
    ``org/name@revision`` of the Hugging Face hub, or a single ``.safetensors`` file of SD1, SD2 or SDXL in the original
    layout."""
    config: SetupPath | None = None
    """Folder or ``org/name@revision`` of a pipeline that lends a single file its configurations and tokenizers. Null:
    one of the same kind in the hub's cache on this machine."""
    unet: SetupPath | None = None
    """Folder of another UNet that takes the checkpoint's place, or of a pipeline that has it, or its
    ``org/name@revision``."""
    vae: SetupPath | None = None
    """The same of a VAE."""
    dtype: FloatDtype = "float32"
    """Floating point type in which the teacher runs while its answers are cached. On a GPU ``float16`` costs as much as
    ``bfloat16`` and is nearer to ``float32``, as the original runs it; a CPU has no quick ``float16``."""
    vae_dtype: FloatDtype = "float32"
    """The same of the VAE, ``float32`` as in the original code: in ``bfloat16``, the standard deviation of its answers
    moves by some 3 %. A VAE that overflows in ``float16`` (``force_upcast``) never runs in it."""

    @property
    def folder(self) -> Path:
        """The checkpoint on this machine, with the parts that replace its own.

        Raises:
            CheckpointError: something is missing, or cannot be got from the hub.
        """
        base = local_folder(self.checkpoint)
        if base.is_file():
            config = None if self.config is None else local_folder(self.config, weights=False)
            base = folder_of_single_file(base, config)
        elif self.config is not None:
            raise CheckpointError(
                "teacher.config is for single files alone", where=base, remedy="Leave it out: this folder has its own."
            )
        parts = {name: local_folder(place) for name, place in self._parts().items()}
        return assembled_folder(base, parts) if parts else base

    @property
    def place(self) -> str:
        """What others load it from: the checkpoint as it is named, or, with parts of elsewhere, its folder here."""
        whole = not self._parts() and not isinstance(self.checkpoint, Location)
        return str(self.checkpoint if whole else self.folder)

    @property
    def name(self) -> str:
        """What it is called, the parts from elsewhere included."""
        parts = [f" with {name} of {model_name(place)}" for name, place in self._parts().items()]
        return model_name(self.checkpoint) + ",".join(parts)

    def _parts(self) -> dict[str, Path]:
        return {name: place for name, place in (("unet", self.unet), ("vae", self.vae)) if place is not None}

    def absolute(self) -> TeacherConfig:
        """The same for another working directory."""
        places = {"checkpoint": self.checkpoint, **self._parts()}
        places |= {} if self.config is None else {"config": self.config}
        return self.model_copy(
            update={name: place if is_hub_id(place) else place.resolve() for name, place in places.items()}
        )


class DrawingConfig(Section):
    """How the teacher draws the images of a corpus of texts."""

    form: Literal["generated", "trajectory"] = "generated"
    """``generated``: the drawn latents are treated as an image's: noise is added for every record. ``trajectory``:
    records are states of the drawing itself, which are stored."""
    steps: PositiveInt = 12
    """Steps of the denoising."""
    guidance: Annotated[float, Field(ge=1.0)] = 5.0
    """Scale of the classifier-free guidance; 1: none."""
    rows_per_part: PositiveInt = 1024
    """Rows of the table that make one part, which takes the place of a tar."""

    @property
    def passes(self) -> int:
        """Passes of the UNet for each text."""
        return self.steps * (2 if self.guidance > 1 else 1)


class CorpusConfig(Section):
    """Image-caption tars in WebDataset form: ``key.jpg`` or ``key.png`` beside ``key.json``; or texts alone."""

    tars: tuple[TarPattern, ...] = ()
    """Paths and URLs of the tars, or of folders of them, plain or with gzip; ``*`` and ``{00000..00099}`` stand for
    many. Tars are used by name, whatever their order; ``NAME::PATTERN`` puts ``NAME-`` before the names of its
    tars."""
    texts: TarPattern | tuple[TarPattern, ...] | None = None
    """In place of tars, for the parallel corpus: tables of captions (CSV, TSV, JSONL, Parquet) whose images the teacher
    draws. ``captions`` then names columns; empty: those that are named by languages, or an object ``captions``."""
    id_column: str | None = None
    """Column of such a table that names its rows; null: ``id`` or ``key`` where it has one, else the text's digest."""
    drawing: DrawingConfig = DrawingConfig()
    """How the teacher draws them."""
    source_language: str = "en"
    """Language whose caption drives the teacher. For the culture corpus: the language its captions are in."""
    captions: dict[str, str] = Field(default_factory=dict)
    """Language -> dotted field of the json, as ``{en: captions.en}``. Empty: all of ``captions``."""

    caption_tables: tuple[TarPattern, ...] = ()
    """Folders with a table of captions for each tar, as `pea data captions`, `clean` and `translate` write them. A
    caption here counts before that of the tar. The cache reads those in the source language, which the teacher is asked
    with and a sample needs; training reads all others beside the cache, so that they may come and change later."""
    image_formats: tuple[ImageFormat, ...] = Field(default=DEFAULT_FORMATS, min_length=1)
    """Formats that may be decoded, whatever a file is called; each further one is a further decoder that strangers'
    bytes reach."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.tars) == (self.texts is not None) or self.texts == ():
            raise ValueError("needs tars, or texts in place of them")
        if self.texts is None and (self.id_column is not None or self.drawing != DrawingConfig()):
            raise ValueError("id_column and drawing need texts")
        return self

    @property
    def text_source(self) -> TextSource | None:
        """The tables, where texts take the place of tars."""
        if self.texts is None:
            return None
        places = (self.texts,) if isinstance(self.texts, str) else self.texts
        captions = tuple(self.captions.items())
        return TextSource(places, captions, self.source_language, self.id_column, self.drawing.rows_per_part)

    def reading_rules(self, limits: CacheConfig) -> ReadingRules:
        """How its tars are read."""
        return ReadingRules(
            image_formats=self.image_formats,
            max_file_bytes=limits.max_file_bytes,
            max_image_pixels=limits.max_image_pixels,
            max_aspect_ratio=limits.max_aspect_ratio,
        )

    def caption_fields(self) -> dict[str, str]:
        """The mapping that ``pea.corpus.samples.read_tar`` takes."""
        return dict(self.captions) or {"*": "captions"}


class DescribedConfig(Section):
    """English descriptions of culture images, made by a captioning model: with them these images are distilled as well.

    They keep their diffusion loss. A description stays apart from captions that people wrote.
    """

    language: str = "described_en"
    """What descriptions are called among the captions."""
    tables: tuple[TarPattern, ...] = ()
    """Folders with a table for each tar of the culture corpus, as `pea data describe` writes them; empty: descriptions
    are in the json."""

    def read_tables(self) -> CaptionTables | None:
        """The tables; None where there are none.

        Raises:
            CorpusError: a folder has none.
        """
        return CaptionTables(self.tables) if self.tables else None

    def identity(self) -> dict[str, str]:
        """What decides where descriptions are looked up; what those of a tar are stands beside that tar."""
        return {"language": self.language} | ({"tables": BY_TAR} if self.tables else {})


class CorporaConfig(Section):
    """What the adapter learns from."""

    parallel: CorpusConfig
    """Images with an English and a native caption: distilled from the teacher."""
    culture: CorpusConfig | None = None
    """Images with a native caption only: the ordinary diffusion loss."""
    described: DescribedConfig | None = None
    """Descriptions of culture images that are distilled too; null: none are."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.culture is not None and self.culture.texts is not None:
            raise ValueError("culture: texts alone have nothing that the teacher could not draw without them")
        if self.described is not None and self.culture is None:
            raise ValueError("described needs the culture corpus whose images are described")
        return self

    def absolute(self) -> CorporaConfig:
        """The same for another working directory, of what a worker reads beside its tar."""
        found = {name: corpus for name in ("parallel", "culture") if (corpus := getattr(self, name)) is not None}
        update: dict[str, Section] = {
            name: corpus.model_copy(update={"caption_tables": _resolved(corpus.caption_tables)})
            for name, corpus in found.items()
        }
        if self.described is not None:
            update["described"] = self.described.model_copy(update={"tables": _resolved(self.described.tables)})
        return self.model_copy(update=update)

    def tables_of_caching(self, name: CorpusName) -> CaptionTables | None:
        """The tables that a corpus's source captions are looked up in while it is cached; None: in the tars alone.

        Raises:
            CorpusError: a folder has none.
        """
        if name == "described":  # reads descriptions; captions in other languages are for training
            return None
        source = self.source(name)
        return CaptionTables(source.caption_tables) if source.tars and source.caption_tables else None

    def texts_beside(self, name: CorpusName) -> tuple[CaptionTables, str] | None:
        """The tables of what the teacher reads of a corpus, and the language that is looked up in them.

        Raises:
            CorpusError: a folder has none.
        """
        if name == "described" and self.described is not None:
            tables, language = self.described.read_tables(), self.described.language
        else:
            tables, language = self.tables_of_caching(name), self.source(name).source_language
        return None if tables is None else (tables, language)

    @property
    def names(self) -> list[CorpusName]:
        """Those that there are."""
        return [name for name in CORPUS_NAMES if getattr(self, name) is not None]

    def source(self, name: CorpusName) -> CorpusConfig:
        """Tars and captions of a corpus; those of described images are the culture corpus's, read in English.

        Raises:
            ConfigError: there is no such corpus.
        """
        if name == "described" and self.described is not None and self.culture is not None:
            fields, language = self.culture.caption_fields(), self.described.language
            if not self.described.tables:
                fields |= {self.parallel.source_language: fields.get(language, f"captions.{language}")}
            return self.culture.model_copy(
                update={"source_language": self.parallel.source_language, "captions": fields}
            )
        found = self.parallel if name == "parallel" else self.culture if name == "culture" else None
        if found is None:
            raise ConfigError(f"corpora.{name} is not set")
        return found


def _resolved(places: tuple[TarPattern, ...]) -> tuple[str, ...]:
    return tuple(str(Location.parse(place).resolve()) for place in places)
