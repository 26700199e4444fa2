"""Small tokenizers as published encoders have them."""

from __future__ import annotations

import string
from pathlib import Path

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"一只猫狗红球", *string.ascii_lowercase]


def write_vocabulary(folder: Path) -> Path:
    """`vocab.txt` of a BERT, as in the folder of cn_clip's code."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
    return folder


def write_yttm(path: Path) -> Path:
    """A YouTokenToMe model: letters and four merges."""
    characters = ["▁", *"абвгдежзийклмнопрстуфхцчшщъыьэюя"]
    ids = {character: index for index, character in enumerate(characters, 4)}
    rules, next_id = [], 4 + len(characters)
    for left, right in (("к", "о"), ("▁", "ко"), ("▁ко", "т"), ("с", "т")):
        rules.append((ids[left], ids[right], next_id))
        ids[left + right] = next_id
        next_id += 1
    lines = [f"{len(characters)} {len(rules)}", *(f"{ord(each)} {ids[each]}" for each in characters)]
    lines += [" ".join(map(str, rule)) for rule in rules]
    path.write_text("\n".join([*lines, "1 0 2 3"]) + "\n", "utf-8")
    return path
