"""Why a sample can be left out of a cache."""

from __future__ import annotations

from dataclasses import dataclass

REASONS = {
    "key_duplicate": "the tar has this key before; the first one counts",
    "key_not_text": "the id of a row is neither a text nor a whole number",
    "key_not_utf8": "the file name is not UTF-8",
    "key_too_long": "the file name has more than 1,024 characters",
    "files_apart": "the key's image and json do not lie side by side; write the tar with its files sorted by name",
    "file_not_stored": "a link, a sparse file or a device in place of the file",
    "file_too_large": "an image of more bytes than cache.max_file_bytes, or a json of more than 4 MiB; not read",
    "image_missing": "no jpg, jpeg, png or webp beside the json",
    "image_ambiguous": "more than one image for one key",
    "image_empty": "the image file has no bytes",
    "image_undecodable": "the image is damaged or of an unknown kind",
    "image_too_large": "more pixels than cache.max_image_pixels; not decoded",
    "aspect_ratio": "longer side more than cache.max_aspect_ratio times the shorter one",
    "json_missing": "no json beside the image",
    "json_not_utf8": "the json is not UTF-8",
    "json_unreadable": "the json is not one JSON object without repeated names, or nested deeper than 64 levels",
    "caption_missing": "no caption, or an empty one, in a language that is needed",
    "description_missing": "no description of this culture image; it keeps its diffusion loss",
    "caption_not_text": "a caption, or the name of its language, is not plain text",
    "languages_too_many": "more than 256 languages in the json, or in the tar; name those wanted in corpora.*.captions",
    "nonfinite_latents": "the VAE answered NaN or infinity (common with the SDXL VAE in float16)",
    "nonfinite_teacher": "a text encoder or the UNet answered NaN, infinity, or more than its type holds",
    "row_unreadable": "a row of a table with another number of fields than the header, or that is no JSON object",
    "process_killed": "the sample ended its process more often than cache.run.max_tries allows",
    "removed": "taken down with `pea inspect remove`",
}
"""Every reason for which a sample is left out of a cache."""

NO_DESCRIPTION = "description_missing"
"""No loss: the culture cache has the sample."""
REPEATED = ("key_duplicate", "files_apart")
"""Reasons that say of files of a key what another entry says of the key itself."""


class BadSampleError(Exception):
    """A sample cannot be used; never leaves ``pea.corpus``."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Rejected:
    """A sample that is left out, and why."""

    tar: str
    """Name of the tar."""
    key: str
    """WebDataset ``__key__``."""
    reason: str
    """Code from ``REASONS``."""
    detail: str = ""
    """What was found."""
