"""The tokenizers of the worlds' text encoders, made from the captions that the encoders learn."""

from __future__ import annotations

import json
import math
from collections import Counter

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, CLIPTokenizer, XLMRobertaTokenizer

MAX_TOKENS = {"english": 32, "chinese": 24, "multilingual": 40}
"""Longest caption of the world in tokens of each tokenizer, with room for foreign words."""


def clip_tokenizer(texts: list[str]) -> CLIPTokenizer:
    """Byte-pair encoding as CLIP's: bytes, `</w>` at the end of a word."""
    backend = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1200, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    state = json.loads(backend.to_str())["model"]
    vocabulary = dict(state["vocab"])
    for token in (*(f"{byte}</w>" for byte in sorted(alphabet)), "<|startoftext|>", "<|endoftext|>"):
        vocabulary.setdefault(token, len(vocabulary))
    merges = [tuple(pair) for pair in state["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS["english"])


def bert_tokenizer(texts: list[str], *, whole_script: bool = True) -> BertTokenizer:
    """One token for each character, as for Chinese in BERT.

    Other scripts make words there: their characters are pieces of words as well, and kept as they are written. Without
    `whole_script` they are not, and a word of several kana is unknown.
    """
    characters = sorted({character for text in texts for character in text if not character.isspace()})
    pieces = [f"##{character}" for character in characters if _makes_words(character)] if whole_script else []
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *pieces]
    return BertTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        model_max_length=MAX_TOKENS["chinese"],
        strip_accents=False if pieces else None,  # or Hangul falls apart, and voiced kana lose their sound
    )


def xlm_roberta_tokenizer(texts: list[str]) -> XLMRobertaTokenizer:
    """A unigram vocabulary as XLM-RoBERTa's: whole words where a language has spaces, else characters."""
    words = Counter(f"▁{word}" for text in texts for word in text.split() if _is_spaced(word))
    characters = Counter(character for text in texts for character in text if not character.isspace())
    pieces = dict.fromkeys(sorted(characters) + ["▁"], -12.0) | {
        word: math.log(n / words.total()) for word, n in words.items()
    }
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    vocabulary = [*special, *sorted(pieces.items()), ("<mask>", 0.0)]
    return XLMRobertaTokenizer(vocab=vocabulary, model_max_length=MAX_TOKENS["multilingual"])


def _makes_words(character: str) -> bool:
    """Whether BERT keeps such characters together: letters, but for Chinese ones."""
    return character.isalpha() and not 0x3400 <= ord(character) <= 0x9FFF


def _is_spaced(word: str) -> bool:
    """Whether the script of the word puts spaces between words (Latin, Cyrillic, Hangul)."""
    return all(ord(character) < 0x2E80 or 0xAC00 <= ord(character) <= 0xD7A3 for character in word)
