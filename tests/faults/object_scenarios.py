"""Writers of objects, careful and careless, on which the walk over requests is tested."""

from __future__ import annotations

from collections.abc import Callable

from pea.storage import Location, RetryPolicy, configure
from stages.command.guard import guarded
from tests.faults.scenario import Scenario

TEXT = b"content " * 100
_PATIENT = RetryPolicy(max_retries=10, first_wait_s=0.05, longest_wait_s=0.2, give_up_after_s=60, silence_s=1.5)
"""Longer than any fault that passes, and quick enough for a server that is down."""
NAMES = ("a", "b", "c")


def _command(write: Callable[[Location], None]) -> Callable[[str], int]:
    def command(url: str) -> int:
        configure({}, _PATIENT)

        def work() -> int:
            write(Location.parse(url))
            return 0

        return guarded(work)

    return command


def _has_record(folder: Location) -> bool:
    try:
        return (folder / "record").read_bytes() != b""
    except FileNotFoundError:
        return False


def _published(folder: Location) -> None:
    """Content under names of its own, then what names it, once."""
    if _has_record(folder):
        return
    for name in NAMES:
        (folder / "parts" / name).write_bytes(TEXT)
    assert all((folder / "parts" / name).read_bytes() == TEXT for name in NAMES)
    (folder / "record").write_text(" ".join(NAMES))


def _record_first(folder: Location) -> None:
    if not _has_record(folder):
        (folder / "record").write_text(" ".join(NAMES))
        for name in NAMES:
            (folder / "parts" / name).write_bytes(TEXT)


def _result(url: str) -> dict[str, int]:
    folder = Location.parse(url)
    return {name: len((folder / "parts" / name).read_bytes()) for name in (folder / "record").read_text().split()}


def _between(url: str) -> None:
    if _has_record(Location.parse(url)):
        _result(url)


PUBLISHED = Scenario(_command(_published), _result, between=_between)
RECORD_FIRST = Scenario(_command(_record_first), _result, between=_between)
