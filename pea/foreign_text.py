"""Other people's text (prompts, captions, keys, paths): shown without harm, and turned into file names."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_SAFE_NAME = re.compile(r"\w[\w.+-]*")
_LONGEST_WORDS = 40
_LONGEST_NAME_BYTES = 180
_DIGEST_LENGTH = 10
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str, *, keep: str = "") -> str:
    r"""The text with everything escaped that a terminal would obey instead of show: ``\x1b``, ``\u202e``, ``\n``...

    Joined emoji and combining marks stay whole. ``keep``: control characters that are meant, as the line breaks of a
    text with many lines.
    """
    if text.isprintable():
        return text
    obeyed = {char for char in set(text) - set(keep) if _is_obeyed(char)}
    return "".join(char.encode("unicode_escape").decode() if char in obeyed else char for char in text)


def _is_obeyed(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in _BIDI_CONTROLS


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: one with a lone half of a surrogate pair can't."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def file_name(text: str) -> str:
    """A name of one path component for any text: itself where it is harmless, else words and a digest.

    Different texts have different names (a harmless one has no ``~``); none is hidden, climbs (``..``), holds a
    separator, or is longer than 200 bytes.
    """
    if _SAFE_NAME.fullmatch(text) and len(text.encode()) <= _LONGEST_NAME_BYTES:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
    return f"{words(text) or 'text'}~{digest}"


def words(text: str) -> str:
    """Letters and digits of any script with ``-`` between the words, at most 40: a part of a file name for people."""
    return re.sub(r"\W+", "-", text).strip("-_")[:_LONGEST_WORDS]
