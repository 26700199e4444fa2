"""Codes of languages, to tell a column that is named by one (ISO 639-1)."""

from __future__ import annotations

_CODES = (
    "af ar az be bg bn bs ca cs cy da de el en eo es et eu fa fi fr ga gl gu he hi hr hu hy id is it ja ka kk km kn ko"
    " ky lo lt lv mk ml mn mr ms my nb ne nl nn no pa pl ps pt ro ru si sk sl sq sr sv sw ta te tg th tl tr uk ur uz vi"
    " zh"
)
LANGUAGES = frozenset(_CODES.split())
"""Languages that captions are likely to be in. ``id`` is Indonesian, and more often a column of ids."""
