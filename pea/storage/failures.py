"""One place where the errors of libraries and of the system become ours, in one line and without secrets."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pea.errors import (
    AccessDeniedError,
    ContentChangedError,
    DiskFullError,
    LocationExistsError,
    LocationMissingError,
    PeaError,
    StorageError,
)

_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_STATUS = re.compile(r"status code: (\d{3}[ \w]*)")
_REFUSED = re.compile(r"status code: 40[13]\b")
_CODE = re.compile(r"<Code>([^<]{1,80})</Code>")
_QUERY = re.compile(r"\?[^\s)]*")
_SECRET_NAME = re.compile(r"^(AWS|AZURE|GOOGLE|GCP)_.*(SECRET|TOKEN|KEY|SAS|PASSWORD|CREDENTIAL)")
_RETRIES = re.compile(r"after ([1-9]\d*) retries")
_BROKEN = {
    "TimedOut": "no answer in time",
    "ConnectionRefused": "the server refuses connections",
    "failed to lookup address": "the server's name is not known",
    "IncompleteMessage": "the connection broke off",
    "IncompleteBody": "the connection broke off",
    "ConnectionReset": "the connection broke off",
    "BrokenPipe": "the connection broke off",
}
_NO_SERVER = ("ConnectionRefused", "failed to lookup address")
_ENDPOINT = (
    "See that the server is up, and the endpoint right (AWS_ENDPOINT_URL, AZURE_STORAGE_ENDPOINT, or `storage` in the "
    "configuration)."
)
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_INSTANCE_ROLE = ("169.254.169.254", "metadata.google.internal", "169.254.170.2")
_CREDENTIALS = "Set the credentials as the platform's own tools want them, or `anonymous: true` for a public bucket."


@contextmanager
def translated(action: str, where: object) -> Iterator[None]:
    """Raise what happens inside as a ``PeaError``; ``action`` as in "cannot read".

    The library's own error is not kept as the cause: its text may hold a signed URL.

    Raises:
        LocationMissingError: there is nothing.
        LocationExistsError: there is something already.
        AccessDeniedError: no credentials, wrong ones, or no right.
        ContentChangedError: not the expected version any more.
        DiskFullError: no room.
        StorageError: anything else, after the bounded number of tries.
    """
    try:
        yield
    except PeaError:
        raise
    except OSError as error:
        raise _of_the_system(error, action, where) from None
    except Exception as error:
        if not _is_of_a_store(error):
            raise
        raise _of_a_store(error, action, where) from None


def _is_of_a_store(error: Exception) -> bool:
    """An error of obstore, which is imported by who reaches for a bucket, and need not be installed otherwise."""
    exceptions = sys.modules.get("obstore.exceptions")
    return exceptions is not None and isinstance(error, exceptions.BaseError)


def _of_the_system(error: OSError, action: str, where: object) -> PeaError:
    if error.errno in _OUT_OF_SPACE:  # not what it was raised in the handling of: a later read has its own reason
        return DiskFullError("the disk is full", where=where, remedy="Make room and run the same command again.")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        bucket = _code(str(error)) in _NO_BUCKET
        what = "the bucket does not exist" if bucket else "there is nothing"
        translation: PeaError = LocationMissingError(what, where=where)
    elif isinstance(error, FileExistsError):
        translation = LocationExistsError("exists already", where=where)
    elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
        translation = AccessDeniedError(f"{action}: not allowed", where=where)
    else:
        translation = StorageError(action, where=where, got=error.strerror or shown(str(error)))
    if isinstance(translation, OSError):
        translation.errno = error.errno or _ERRNO.get(type(translation))
    return translation


_ERRNO: dict[type, int] = {LocationMissingError: errno.ENOENT, LocationExistsError: errno.EEXIST}


def _of_a_store(error: Exception, action: str, where: object) -> PeaError:
    from obstore.exceptions import (
        AlreadyExistsError,
        PermissionDeniedError,
        PreconditionError,
        UnauthenticatedError,
    )

    text = str(error)
    if isinstance(error, AlreadyExistsError):
        return LocationExistsError("exists already", where=where)
    if isinstance(error, PreconditionError):
        return ContentChangedError("it changed while it was read", where=where, remedy="Run again.")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or _REFUSED.search(text):
        return AccessDeniedError(f"{action}: not allowed", where=where, got=shown(text), remedy=_CREDENTIALS)
    if any(address in text for address in _INSTANCE_ROLE):
        return AccessDeniedError(f"{action}: no credentials were found", where=where, remedy=_CREDENTIALS)
    if _code(text) in _NO_BUCKET:
        return LocationMissingError("the bucket does not exist", where=where)
    remedy = _ENDPOINT if any(sign in text for sign in _NO_SERVER) else None
    return StorageError(action, where=where, got=shown(text), remedy=remedy)


def shown(text: str) -> str:
    """The part of a library's message that helps: status and error code, or what broke; no query, no secret."""
    retries = _RETRIES.search(text)
    times = f", after {retries.group(1)} retries" if retries else ""
    status, code = _STATUS.search(text), _code(text)
    if status:
        return f"{status.group(1).strip()}{f' ({code})' if code else ''}{times}"
    for sign, meaning in _BROKEN.items():
        if sign in text:
            return meaning + times
    return without_secrets(_QUERY.sub("", text.partition("\n")[0]))[:200]


def without_secrets(text: str) -> str:
    """The text with every secret that the environment holds blotted out."""
    for name, value in os.environ.items():
        if len(value) >= 4 and _SECRET_NAME.match(name):
            text = text.replace(value, "***")
    return text


def _code(text: str) -> str | None:
    found = _CODE.search(text)
    return found.group(1) if found else None
