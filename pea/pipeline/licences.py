"""Licences and languages as the front matter of a card may name them: with others the hub refuses the upload.

Source: huggingface.co/docs/hub/repositories-licenses and model-cards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from pea.errors import CheckpointError

_IDS = (
    "afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0"
    " bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5"
    " cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0"
    " cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0"
    " cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0"
    " etalab-2.0 eupl-1.1 eupl-1.2 gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0"
    " lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1"
    " openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib"
)
LICENCES = frozenset(_IDS.split())
_LANGUAGE = re.compile(r"[a-z]{2,3}")


def check_licence(licence: object, where: object) -> str:
    """One licence by its identifier on the hub.

    Raises:
        CheckpointError: it is none of those, or a list.
    """
    if isinstance(licence, str) and licence in LICENCES:
        return licence
    spelt = str(licence).lower().replace(" ", "-")
    near = sorted(each for each in LICENCES if spelt in each) or get_close_matches(spelt, LICENCES, n=3)
    raise CheckpointError(
        "not one licence as the hub spells it",
        where=where,
        expected=" or ".join(near) or "apache-2.0, creativeml-openrail-m, openrail++",
        got=licence,
        remedy="For one that the hub does not list: --licence other, and license_name on a card of yours.",
    )


def hub_languages(codes: Iterable[str]) -> list[str]:
    """`zh` of `zh-Hans`, `pt` of `pt_BR`: the hub knows codes of two or three small letters; others are left out."""
    found = (code.replace("_", "-").partition("-")[0].lower() for code in codes)
    return list(dict.fromkeys(code for code in found if _LANGUAGE.fullmatch(code)))


def check_languages(codes: Iterable[str], where: object) -> None:
    """Each must be a code.

    Raises:
        CheckpointError: one is none.
    """
    for code in codes:
        if not hub_languages([code]):
            raise CheckpointError(
                "not the code of a language", where=where, expected="zh, pt-BR", got=code, remedy="Give --language zh."
            )
