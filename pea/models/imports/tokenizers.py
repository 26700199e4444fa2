"""The tokenizer that belongs to an imported tower, from files that lie beside it or elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pea.errors import CheckpointError
from pea.models.imports.towers import Tower
from pea.models.loading import load_tokenizer

_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_YTTM = "bpe.model"
_SPACE = "▁"


def has_tokenizer(folder: Path) -> bool:
    """Whether files of a tokenizer lie in a folder."""
    return any((folder / name).is_file() for name in (*_FILES, _YTTM) if name != "special_tokens_map.json")


def write_tokenizer(source: Path, tower: Tower, out: Path) -> None:
    """Put the tokenizer of `source` into `out`, where the tower's `config.json` is already.

    Raises:
        CheckpointError: there is none, or it has more tokens than the tower.
    """
    if (source / _YTTM).is_file():
        tokenizer: Any = read_yttm(source / _YTTM, tower.config["max_position_embeddings"])
    elif has_tokenizer(source):
        for name in _FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, out / name)
        tokenizer = load_tokenizer(AutoTokenizer, out)
    else:
        raise CheckpointError(
            "no tokenizer here",
            where=source,
            expected=f"one of {', '.join(_FILES[:2] + _FILES[4:])}, {_YTTM}",
            remedy="Give the folder of its tokenizer: --tokenizer FOLDER.",
        )
    vocab_size = (tower.config.get("text_config") or tower.config).get("vocab_size")
    if vocab_size is not None and len(tokenizer) > int(vocab_size):
        raise CheckpointError(
            "the tokenizer is not this model's", where=source, expected=f"{vocab_size} tokens", got=len(tokenizer)
        )
    if tower.template is not None:
        _set_template(tokenizer, tower, source)
    tokenizer.save_pretrained(out)
    if tower.template is not None:  # a class of its own would put its own special tokens back
        path = out / "tokenizer_config.json"
        said = json.loads(path.read_text("utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        path.write_text(json.dumps(said, indent=2) + "\n")


def _set_template(tokenizer: Any, tower: Tower, source: Path) -> None:
    if getattr(tokenizer, "backend_tokenizer", None) is None or tokenizer.cls_token is None:
        raise CheckpointError("the tokenizer is not this model's", where=source, expected="a token [CLS]")
    template = str(tower.template).format(cls=tokenizer.cls_token)
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(tokenizer.cls_token, tokenizer.cls_token_id)]
    )
    if tower.lower_case:
        lower = normalizers.Lowercase()
        backend.normalizer = lower if backend.normalizer is None else normalizers.Sequence([lower, backend.normalizer])


def read_yttm(path: Path, max_tokens: int) -> PreTrainedTokenizerFast:
    """A YouTokenToMe model as ruCLIP uses it: lower case, begin and end around a caption, unknown runs as one token.

    Source: VKCOM/YouTokenToMe, youtokentome/cpp/utils.cpp (`BPEState::dump`), bpe.cpp (`encode_sentence`); ruclip's
    processor.py.

    Raises:
        CheckpointError: it is no such file.
    """
    try:
        numbers = [int(word) for word in path.read_text("utf-8").split()]
        num_characters, num_rules = numbers[:2]
        ends = 2 + 2 * num_characters, 2 + 2 * num_characters + 3 * num_rules
        pieces = {numbers[i + 1]: chr(numbers[i]) for i in range(2, ends[0], 2)}
        merges = []
        for start in range(ends[0], ends[1], 3):
            left, right, whole = numbers[start : start + 3]
            merges.append((pieces[left], pieces[right]))
            pieces[whole] = pieces[left] + pieces[right]
        unknown, padding, begin, end = numbers[ends[1] :]
    except (OSError, ValueError, LookupError, OverflowError) as error:
        raise CheckpointError("not a YouTokenToMe model", where=path, got=str(error) or type(error).__name__) from error
    if len(set(pieces.values())) < len(pieces):
        raise CheckpointError("two of its tokens are spelt alike, which cannot be carried over", where=path)
    names = ("<PAD>", "<UNK>", "<BOS>", "<EOS>")
    special = dict(zip(names, (padding, unknown, begin, end), strict=True))
    vocabulary = special | {piece: index for index, piece in pieces.items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token=names[1], fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(rf"[\s{_SPACE}]+"), " "), normalizers.Strip(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always", split=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<BOS> $A <EOS>", special_tokens=[("<BOS>", begin), ("<EOS>", end)]
    )
    roles = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), names, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_tokens, **roles)
