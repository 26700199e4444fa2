"""The errors: one line, picklable, caught by the fitting builtin."""

from __future__ import annotations

import errno
import pickle

import pytest

from pea import errors

LEAVES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PeaError)]


def test_message_has_every_part_on_one_line() -> None:
    error = errors.CorpusError("no\n samples", where="a.tar", expected="1", got="0", remedy="Look at it.")
    assert str(error) == "a.tar: no samples; expected 1; got 0. Look at it."


@pytest.mark.parametrize("kind", LEAVES)
def test_every_error_survives_pickling(kind: type[errors.PeaError]) -> None:
    error = kind("what", where="here", got=3)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error) == "here: what; got 3"


def test_extra_fields_survive_pickling() -> None:
    error = errors.IdentityError("differs", differences=["a", "b"])
    assert pickle.loads(pickle.dumps(error)).differences == ("a", "b")


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.CorpusError, ValueError),
        (errors.CheckpointError, OSError),
        (errors.DiskFullError, OSError),
        (errors.ShardDamagedError, ValueError),
        (errors.TrainingError, RuntimeError),
    ],
)
def test_leaf_is_also_a_builtin(kind: type[errors.PeaError], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match="what"):
        raise kind("what")


def test_disk_full_is_recognised_through_causes() -> None:
    outer, inner = RuntimeError("write failed"), OSError(errno.ENOSPC, "No space left on device")
    outer.__cause__ = inner
    assert errors.is_disk_full(outer)
    assert not errors.is_disk_full(OSError(errno.ENOENT, "missing"))
