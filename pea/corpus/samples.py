"""From WebDataset tars to samples.

Whatever a tar contains has a defined outcome: a ``Sample``, a ``Rejected`` with a reason code of ``REASONS``, or, when
the tar as a whole cannot be trusted, a ``CorpusError``. The tar is read once, as it comes, so that the error can follow
samples that were good: who writes them down publishes nothing before the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from pea.corpus.archive import Member
from pea.corpus.caption_tables import CaptionsBeside
from pea.corpus.captions import original_size, read_captions, read_json
from pea.corpus.grouping import Content, Group, Unread, key_groups, key_problem, shown_key
from pea.corpus.images import (
    Placed,
    bucket_name,
    check_formats,
    choose_bucket,
    place_in_bucket,
    read_image,
    to_rgb,
)
from pea.corpus.reasons import REASONS, BadSampleError, Rejected
from pea.corpus.rules import JSON, MAX_JSON_BYTES, ReadingRules
from pea.corpus.tars import (
    OpenTar,
    Place,
    Tar,
    TarIdentity,
    expand_tars,
    open_tar,
    sample_id,
    tar_identity,
    tar_keys,
    tar_name,
)


@dataclass(frozen=True)
class Sample:
    """One image with its captions."""

    tar: str
    """Name of the tar."""
    key: str
    """WebDataset ``__key__``."""
    image: Image.Image
    """RGB, upright."""
    captions: dict[str, str]
    """Language -> caption; no empty ones."""
    original_size: tuple[int, int] | None = None
    """(H, W) in px before somebody made the image smaller, upright, where the json knows."""

    @property
    def id(self) -> str:
        """What names the sample everywhere: tar and key."""
        return sample_id(self.tar, self.key)


def read_tar(
    place: Place,
    captions: Mapping[str, str],
    *,
    required: Sequence[str] = (),
    rules: ReadingRules = ReadingRules(),  # noqa: B008 (frozen)
    skip: Collection[str] = (),
    in_flight: Callable[[str], object] = lambda _: None,
    expect: TarIdentity | None = None,
    beside: CaptionsBeside | None = None,
) -> Iterator[Sample | Rejected]:
    """Yield every sample of a tar in the tar's order, usable or not.

    ``captions`` maps a language to a dotted field of the json; ``{"*": "captions"}`` takes each language of
    that object. A language that is absent or empty is left out of ``Sample.captions``, unless it is in
    ``required``. ``in_flight`` is told each key before the first of its bytes is read. ``expect``: what the tar must
    be, to its last bit. ``beside``: captions that count before those of the jsons.

    Raises:
        CorpusError: the tar is missing, truncated, damaged between its members, not what is said beside it or expected,
            or its end is not proven. Follows the samples before the damage.
        ConfigError: a decoder is missing.
    """
    check_formats(rules)
    with open_tar(place, digest=expect is not None) as tar:
        name = expect.name if expect else tar_name(place)
        reader = _Reader(tar, name, captions, required, rules, skip, in_flight, beside)
        for group in key_groups(tar.members, rules.image_extensions, reader.content):
            yield reader.sample(group)
            reader.told = None
        tar.finish(expect)


class _Reader:
    """Makes samples of the files of a tar."""

    def __init__(
        self,
        tar: OpenTar,
        name: str,
        captions: Mapping[str, str],
        required: Sequence[str],
        rules: ReadingRules,
        skip: Collection[str],
        in_flight: Callable[[str], object],
        beside: CaptionsBeside | None,
    ) -> None:
        self._tar, self._name, self._rules = tar, name, rules
        self._captions, self._required, self._languages = captions, required, set[str]()
        self._skip, self._in_flight, self._beside = skip, in_flight, beside
        self.told: str | None = None
        """The key that ``in_flight`` was told last, since a sample was handed out."""

    def content(self, member: Member, key: str) -> Content:
        """The bytes of an image or a json, or why they are not read."""
        if member.kind != "file":
            return Unread("file_not_stored", f"{member.name!a}: {member.kind}"[:200])
        if key in self._skip or key_problem(key):
            return Unread("")
        limit = MAX_JSON_BYTES if member.name.lower().endswith(f".{JSON}") else self._rules.max_file_bytes
        if member.size_bytes > limit:
            return Unread("file_too_large", f"{member.size_bytes} bytes")
        self._tell(key)
        return member.read()

    def sample(self, group: Group) -> Sample | Rejected:
        """What becomes of a key."""
        key = shown_key(group.key)
        if self._beside:
            self._beside.see(key)
        try:
            repeated = self._tar.seen.note(group)
            if problem := repeated or key_problem(group.key):
                raise BadSampleError(problem, group.extensions)
            if key in self._skip:
                raise BadSampleError("process_killed")
            return self._decode(key, group)
        except BadSampleError as bad:
            return Rejected(self._name, key, bad.reason, bad.detail)

    def _decode(self, key: str, group: Group) -> Sample:
        files = dict[str, bytes]()
        for extension, content in group.files.items():
            if isinstance(content, bytes):
                files[extension] = content
            elif content.reason:
                raise BadSampleError(content.reason, content.detail)
        if JSON not in group.files:
            raise BadSampleError("json_missing", group.extensions)
        if len(group.files) == 1:
            raise BadSampleError("image_missing", group.extensions)
        self._tell(key)
        document = read_json(files[JSON])
        beside = self._beside.captions(key) if self._beside else {}
        texts = read_captions(document, self._captions, self._required, self._languages, beside)
        image, turned = read_image(files, self._rules)
        size = original_size(document) if self._rules.original_size else None
        return Sample(self._name, key, image, texts, size[::-1] if size and turned else size)

    def _tell(self, key: str) -> None:
        if key != self.told:
            self.told = key
            self._in_flight(key)


__all__ = [
    "REASONS",
    "Placed",
    "ReadingRules",
    "Rejected",
    "Sample",
    "Tar",
    "TarIdentity",
    "bucket_name",
    "choose_bucket",
    "expand_tars",
    "place_in_bucket",
    "read_tar",
    "sample_id",
    "tar_identity",
    "tar_keys",
    "tar_name",
    "to_rgb",
]
