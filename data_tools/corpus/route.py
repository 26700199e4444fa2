"""Where a sample belongs: among the parallel ones, whose English is faithful, or among those of a culture.

Every decision comes with its reasons, in words that a person can check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from data_tools.corpus.agreement import chrf
from data_tools.corpus.captioned import Captioned
from data_tools.corpus.scripts import base_language, main_script, scripts_of_language, share_in

Route = Literal["parallel", "culture", "english_only", "none"]
ROUTES: Mapping[Route, str] = {
    "parallel": "a usable English caption and one in another language",
    "culture": "a usable caption, and no usable English one",
    "english_only": "a usable English caption alone: translate it first",
    "none": "no usable caption",
}
TRANSLATION, DESCRIPTION = "translation", "description"
"""How the provenance of a caption begins that no person wrote."""
_DESCRIBED = "described"
"""How the names of descriptions among the captions begin."""
_ALIKE = (
    {"zh", "yue", "wuu"},
    {"da", "nb", "nn", "no"},
    {"bs", "hr", "sl", "sr"},
    {"id", "ms", "jv"},
    {"cs", "sk"},
    {"be", "bg", "mk", "ru", "uk"},
    {"an", "ast", "ca", "es", "gl", "pt"},
    {"af", "nl"},
)
"""Languages that an identifier takes for one another in short texts."""
Identify = Callable[[str], tuple[str, float]]


@dataclass(frozen=True)
class RoutingRules:
    """What makes a caption usable."""

    english: str = "en"
    """Language of the captions that the teacher reads."""
    languages: tuple[str, ...] = ()
    """Languages of the student; empty: every other one."""
    min_script_share: float = 0.5
    """Least share of a caption's letters that must be of its language's scripts."""
    min_confidence: float = 0.9
    """Confidence from which on another language that is told refutes the one that is claimed."""
    min_characters: int = 20
    """Shorter captions are not long enough to tell their language; of Chinese, Japanese and Korean, a third of it."""
    min_agreement: float = 0.3
    """Least agreement (chrF) of a caption with its translation back."""
    trust_translations: bool = False
    """Whether English that a machine made of the native caption counts without a translation back."""
    min_gain: float | None = None
    """Share by which a description must lower the teacher's own noise error to be kept; None: none is looked at."""


@dataclass
class Routed:
    """Where a sample goes, and why."""

    route: Route
    captions: dict[str, str]
    """The usable ones."""
    reasons: list[str]
    agreement: float | None = None
    """With the translation back, where there is one."""
    gain: float | None = None
    """By what share the description lowers the teacher's noise error, where that is known."""
    codes: list[str] = field(default_factory=list)
    """The reasons without what is particular to the sample, to be counted."""


class Router:
    """Decides for one sample after the other."""

    def __init__(self, rules: RoutingRules, identify: Identify | None = None, known: Sequence[str] = ()) -> None:
        """``identify``: text -> language and confidence; ``known``: what it tells. None: scripts alone."""
        self.rules, self._identify, self._known = rules, identify, frozenset(known)

    def route(
        self, sample: Captioned, back: Mapping[str, str] | None = None, gains: Mapping[str, float] | None = None
    ) -> Routed:
        """``back``: language -> what a translation back into it says; ``gains``: key -> gain of its description."""
        found = Routed("none", {}, [])
        for language, text in sample.captions.items():
            if self._is_wanted(language):
                self._look_at(language, text, found)
        self._compare(sample, back or {}, found)
        english, native = self.rules.english, [name for name in found.captions if name != self.rules.english]
        if english in found.captions and native:
            self._check_origin(sample, found)
        has_english = english in found.captions
        found.route = (
            ("parallel" if has_english else "culture") if native else "english_only" if has_english else "none"
        )
        _note(found, found.route, ROUTES[found.route])
        if self.rules.min_gain is not None:
            self._judge_description(sample, (gains or {}).get(sample.key), self.rules.min_gain, found)
        return found

    def _judge_description(self, sample: Captioned, gain: float | None, least: float, found: Routed) -> None:
        """Keep a description that the teacher understands; it decides no route, as no person wrote it."""
        for name in (name for name in sample.captions if name.startswith(_DESCRIBED)):
            found.gain = gain
            if gain is None:
                _note(found, f"{name}: no gain recorded", f"{name}: the cache has no such sample")
            elif gain < least:
                said = f"{name}: lowers the teacher's noise error by {gain:.1%} only"
                _note(found, f"{name}: not understood by the teacher", said)
            else:
                found.captions[name] = sample.captions[name]
                found.reasons.append(f"{name}: lowers the teacher's noise error by {gain:.1%}")

    def _is_wanted(self, language: str) -> bool:
        rules = self.rules
        return (
            language == rules.english
            or language in rules.languages
            or not (rules.languages or language.startswith(_DESCRIBED))
        )

    def _look_at(self, language: str, text: str, found: Routed) -> None:
        scripts = scripts_of_language(language)
        if scripts is not None and share_in(text, scripts) < self.rules.min_script_share:
            _note(found, f"{language}: other script", f"{language}: written in {main_script(text)}")
            return
        told = self._told_language(language, text)
        if told is not None:
            _note(found, f"{language}: other language", f"{language}: reads as {told[0]} ({told[1]:.2f})")
            return
        found.captions[language] = text

    def _told_language(self, language: str, text: str) -> tuple[str, float] | None:
        """Another language than is claimed, where that is certain."""
        base = base_language(language)
        dense = base in ("zh", "ja", "ko")
        if self._identify is None or base not in self._known:
            return None
        if len(text) < self.rules.min_characters / (3 if dense else 1):
            return None
        told, confidence = self._identify(text)
        kin = any(base in group and told in group for group in _ALIKE)
        return None if told == base or kin or confidence < self.rules.min_confidence else (told, confidence)

    def _compare(self, sample: Captioned, back: Mapping[str, str], found: Routed) -> None:
        """A translation back that says something else refutes what a machine made, or else the English."""
        values = {name: chrf(text, found.captions[name]) for name, text in back.items() if name in found.captions}
        if not values:
            return
        found.agreement = min(values.values())
        if found.agreement >= self.rules.min_agreement:
            return
        made = [name for name in found.captions if sample.provenance.get(name, "").startswith(TRANSLATION)]
        doubted = made or [self.rules.english]
        for name in doubted:
            if found.captions.pop(name, None) is not None:
                said = f"{name}: the translation back agrees to {found.agreement:.2f} only"
                _note(found, f"{name}: no agreement", said)

    def _check_origin(self, sample: Captioned, found: Routed) -> None:
        """English that a machine made of a native caption is no faithful one, as long as nothing shows that it is."""
        english = self.rules.english
        origin = sample.provenance.get(english, "")
        if not origin or (
            origin.startswith(TRANSLATION) and (self.rules.trust_translations or found.agreement is not None)
        ):
            return
        del found.captions[english]
        what = "a description" if origin.startswith(DESCRIPTION) else "a translation that nothing confirms"
        _note(found, f"{english}: {what}", f"{english}: {what} ({origin})")


def _note(found: Routed, code: str, reason: str) -> None:
    found.codes.append(code)
    found.reasons.append(reason)
