"""Tiny random translation models of the real classes, with tokenizers that are trained on a few sentences."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import sentencepiece
import torch
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Tokenizer,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
    NllbTokenizer,
)

SENTENCES = ["a red cat", "a small dog in the snow", "two green squares above a circle", "一只红色的猫", "雪地里的小狗"]
_SHAPE = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 48,
    "init_std": 0.6,
}


def _pieces() -> tuple[bytes, list[str]]:
    """A sentencepiece model, and its vocabulary."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4), model_writer=model, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return model.getvalue(), [processor.id_to_piece(index) for index in range(processor.get_piece_size())]


def make_marian(folder: Path, codes: tuple[str, ...] = (), seed: int = 0) -> Path:
    """OPUS-MT's class; ``codes``: target languages that are named at the beginning of a text."""
    folder.mkdir(parents=True)
    model, pieces = _pieces()
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(model)
    names = ["</s>", "<unk>", *pieces[3:], *(f">>{code}<<" for code in codes), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = MarianTokenizer(*(str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")))
        tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    last = len(names) - 1
    special = {"pad_token_id": last, "eos_token_id": 0, "decoder_start_token_id": last, "forced_eos_token_id": 0}
    MarianMTModel(MarianConfig(vocab_size=len(names), **special, **_SHAPE)).save_pretrained(folder)
    return folder


def make_m2m100(folder: Path, seed: int = 0) -> Path:
    """M2M100's class and tokenizer."""
    folder.mkdir(parents=True)
    model, pieces = _pieces()
    (folder / "sentencepiece.bpe.model").write_bytes(model)
    names = ["<s>", "<pad>", "</s>", "<unk>", *pieces[3:]]
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    tokenizer = M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model"))
    tokenizer.save_pretrained(folder)
    num_languages = len(tokenizer.lang_code_to_id)
    return _save_m2m100(folder, len(names), num_languages + tokenizer.num_madeup_words, seed)


def make_nllb(folder: Path, seed: int = 0) -> Path:
    """NLLB-200's class and tokenizer."""
    folder.mkdir(parents=True)
    letters = ["▁", *sorted(set("".join(SENTENCES)) - {" "})]
    vocabulary = {name: index for index, name in enumerate(["<s>", "<pad>", "</s>", "<unk>", *letters])}
    tokenizer = NllbTokenizer(vocab=vocabulary, merges=[])
    tokenizer.save_pretrained(folder)
    return _save_m2m100(folder, len(vocabulary), len(tokenizer) - len(vocabulary), seed)


def _save_m2m100(folder: Path, num_pieces: int, num_others: int, seed: int) -> Path:
    """``num_others``: tokens of languages, which a random model must not be as likely to say as words."""
    torch.manual_seed(seed)
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = M2M100Config(vocab_size=num_pieces + num_others, **special, **_SHAPE)
    model = M2M100ForConditionalGeneration(config)
    with torch.no_grad():
        model.get_input_embeddings().weight[num_pieces:] *= 0.1
    model.save_pretrained(folder)
    return folder
