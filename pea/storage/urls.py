"""Text to scheme, bucket and key, with everything refused that could mean something else."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from pea.errors import LocationError

OBJECT_SCHEMES = ("s3", "gs", "az")
_KNOWN = "a path, file://, s3://, gs:// or az://"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//?)(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,221}")
TENSORSTORE_SCHEMES = ("s3", "gs")
"""Buckets that tensorstore has a driver for."""


def parse_url(text: str) -> tuple[str, str, str]:
    """Scheme, bucket and key of a path or URL; a path has the scheme ``file`` and no bucket.

    Raises:
        LocationError: an unknown scheme, a malformed URL, or one that holds credentials.
    """
    if text.startswith("pipe:"):
        raise LocationError("`pipe:` is refused: it runs a shell command", expected=_KNOWN)
    if not text or "\0" in text:
        raise LocationError("names nothing", expected=_KNOWN)
    url = _URL.fullmatch(text)
    if url is None or (url[2] == "/" and url[1] not in OBJECT_SCHEMES):
        return "file", "", str(Path(text))
    scheme, slashes, rest = url.groups()
    if scheme not in (*OBJECT_SCHEMES, "file"):
        raise LocationError(f"unknown scheme {scheme}://", expected=_KNOWN)
    if slashes == "/":
        raise LocationError("one slash in a URL, where two belong", where=f"{scheme}:/...", expected=_KNOWN)
    return _file(rest) if scheme == "file" else _object(scheme, rest)


def _file(rest: str) -> tuple[str, str, str]:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise LocationError("not a file on this machine", where=f"file://{rest}", expected="file:///path")
    return "file", "", str(Path("/" + unquote(path)))


def _object(scheme: str, rest: str) -> tuple[str, str, str]:
    bucket, _, key = rest.partition("/")
    if "@" in bucket:
        remedy = "Credentials belong in the environment or a profile."
        raise LocationError("a URL must not hold credentials", where=f"{scheme}://...", remedy=remedy)
    if not _BUCKET.fullmatch(bucket):
        raise LocationError("not the name of a bucket", where=f"{scheme}://{bucket}", expected=f"{scheme}://name/key")
    return scheme, bucket, normal_key(key, f"{scheme}://{rest}")


def normal_key(key: str, where: str) -> str:
    """A key without needless slashes.

    Raises:
        LocationError: it climbs, or holds control characters.
    """
    parts = [part for part in key.split("/") if part not in ("", ".")]
    if ".." in parts or any(not part.isprintable() for part in parts):
        raise LocationError("a URL must not hold `..` or control characters", where=where)
    return "/".join(parts)
