"""Translation of captions by a local model: MarianMT (OPUS-MT), NLLB-200 and M2M100, in the layout of transformers.

The same texts in the same order give the same translations on one machine: nothing is sampled, and which texts share a
batch depends on the texts alone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import M2M100ForConditionalGeneration, M2M100Tokenizer, MarianMTModel, MarianTokenizer, NllbTokenizer

from pea.errors import CheckpointError, ConfigError
from pea.file_names import MODEL_CONFIG
from pea.models.loading import load_model, load_tokenizer
from pea.models.teacher_parts import read_config
from pea.models.tensor_files import digest_of
from pea.models.tokenizer_digest import tokenizer_digest
from pea.models.unfilled import quiet_loading
from pea.storage.hub import local_folder, model_name

_POSITIONS = re.compile(r"embed_positions\.weights?$")
"""Sines, which the classes compute."""
_KINDS = {"marian": MarianMTModel, "m2m_100": M2M100ForConditionalGeneration}
_SHOWN = 12


class Translated(NamedTuple):
    """What became of a text."""

    text: str
    """Empty where the model had nothing to say."""
    was_cut: bool
    """Whether the text was longer than the model reads."""


@dataclass(frozen=True)
class Side:
    """A language, as captions are labelled and as the model calls it."""

    language: str
    code: str = ""
    """Empty: the model knows only one, or calls it the same."""


@dataclass(frozen=True)
class TranslationSettings:
    """What decides a translation beside model and text."""

    num_beams: int = 4
    max_new_tokens: int = 128
    batch_size: int = 32
    dtype: str = "float32"


class Translator:
    """A model, and the direction in which it translates."""

    def __init__(
        self, place: str, source: Side, target: Side, settings: TranslationSettings, device: torch.device | str = "cpu"
    ) -> None:
        """``place``: folder of the model, or ``org/name@revision``.

        Raises:
            CheckpointError: it is missing, incomplete, or of another class.
            ConfigError: it does not know a language.
        """
        folder = local_folder(place)
        kind = _kind(folder)
        self.settings, self._device, self._source, self._target = settings, torch.device(device), source, target
        self._tokenizer = _tokenizer(folder, kind)
        dtype = getattr(torch, settings.dtype)
        self._model = load_model(kind, folder, dtype, computed=_POSITIONS).model.to(self._device).eval()
        self._prefix, self._forced = self._direction()
        self._max_tokens = int(self._model.config.max_position_embeddings)
        self.record: dict[str, Any] = {
            "model": model_name(Path(folder) if "@" not in place else Path(place)),
            "class": kind.__name__,
            "weights": digest_of(folder),
            "tokenizer": tokenizer_digest(self._tokenizer),
            "punctuation": "sacremoses" if _has_sacremoses() and kind is MarianMTModel else "as it is",
            "from": f"{source.language}={source.code}",
            "to": f"{target.language}={target.code}",
            **vars(settings),
            "device": self._device.type,
        }
        """All that decides a translation, for the settings beside the table."""

    @property
    def provenance(self) -> str:
        """What stands beside every caption that it makes."""
        direction = f"{self._source.language} > {self._target.language}"
        return f"translation: {self.record['model']} {self.record['weights'][:12]}, {direction}"

    def translate(self, texts: Sequence[str]) -> list[Translated]:
        """The translation of each text."""
        found: list[Translated | None] = [None] * len(texts)
        for batch in self._batches(texts):
            for place, translated in zip(batch, self._translate([texts[place] for place in batch]), strict=True):
                found[place] = translated
        return [each for each in found if each is not None]

    def _batches(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Places of texts of like length, the longest first: what does not fit the memory shows at once."""
        order = sorted(range(len(texts)), key=lambda place: (-len(texts[place]), place))
        size = self.settings.batch_size
        yield from (order[start : start + size] for start in range(0, len(order), size))

    @torch.inference_mode()
    def _translate(self, texts: Sequence[str]) -> list[Translated]:
        given = [self._prefix + text for text in texts]
        lengths = [len(ids) for ids in self._tokenizer(given)["input_ids"]]
        inputs = self._tokenizer(
            given, return_tensors="pt", padding=True, truncation=True, max_length=self._max_tokens
        ).to(self._device)
        with quiet_loading():
            answer = self._model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                forced_bos_token_id=self._forced,
                num_beams=self.settings.num_beams,
                max_new_tokens=self.settings.max_new_tokens,
                do_sample=False,
            )
        said = self._tokenizer.batch_decode(answer, skip_special_tokens=True)
        return [
            Translated(" ".join(text.split()), length > self._max_tokens)
            for text, length in zip(said, lengths, strict=True)
        ]

    def _direction(self) -> tuple[str, int | None]:
        """What begins every text, and the token that begins every answer.

        Raises:
            ConfigError: the model does not know a language.
        """
        if isinstance(self._tokenizer, MarianTokenizer):
            codes = [code[2:-2] for code in self._tokenizer.supported_language_codes]
            if not codes:
                _refuse(self._target.code, "--to", "this model has one direction")
                _refuse(self._source.code, "--from", "this model has one direction")
                return "", None
            _refuse(self._source.code, "--from", "this model tells the language of a text itself")
            return f">>{_known(self._target, codes, '--to')}<< ", None
        codes = [code for code in _language_codes(self._tokenizer) if code]
        self._tokenizer.src_lang = _known(self._source, codes, "--from")
        target = _known(self._target, codes, "--to")
        if isinstance(self._tokenizer, M2M100Tokenizer):
            return "", int(self._tokenizer.get_lang_id(target))
        return "", int(self._tokenizer.convert_tokens_to_ids(target))


def _kind(folder: Path) -> Any:
    config = read_config(folder, "translation model")
    kind = _KINDS.get(config.get("model_type", ""))
    if kind is None:
        raise CheckpointError(
            "not a translation model that is known here",
            where=folder / MODEL_CONFIG,
            expected=f"model_type {' or '.join(_KINDS)} (OPUS-MT, NLLB-200, M2M100)",
            got=config.get("model_type"),
        )
    return kind


def _tokenizer(folder: Path, kind: Any) -> Any:
    with warnings.catch_warnings():  # whether sacremoses is there is recorded
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        if kind is MarianMTModel:
            return load_tokenizer(MarianTokenizer, folder)
        is_m2m100 = (folder / "vocab.json").is_file()
        return load_tokenizer(M2M100Tokenizer if is_m2m100 else NllbTokenizer, folder)


def _has_sacremoses() -> bool:
    import importlib.util

    return importlib.util.find_spec("sacremoses") is not None


def _language_codes(tokenizer: Any) -> list[str]:
    if isinstance(tokenizer, M2M100Tokenizer):
        return list(tokenizer.lang_code_to_id)
    return [token for token in tokenizer.all_special_tokens if re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}", token)]


def _known(side: Side, codes: Sequence[str], option: str) -> str:
    """The model's code of a language.

    Raises:
        ConfigError: it has none of that name; the message shows those that are alike.
    """
    code = side.code or side.language
    if code in codes:
        return code
    alike = [each for each in codes if each.lower().startswith(code.lower()[:2])] or list(codes)
    shown = ", ".join(alike[:_SHOWN]) + (", ..." if len(alike) > _SHOWN else "")
    raise ConfigError(
        "the model does not know this language",
        where=option,
        expected=f"one of {shown}",
        got=code,
        remedy=f"Name the model's code after the caption's language, as {option} {side.language}={alike[0]}.",
    )


def _refuse(code: str, option: str, why: str) -> None:
    if code:
        raise ConfigError(f"no code can be chosen: {why}", where=option, got=code)
