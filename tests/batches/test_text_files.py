"""Text states on disk: stored once, read back to the bit, never stale, never half-written."""

from __future__ import annotations

import errno
import multiprocessing
import subprocess
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import torch

from pea.batches.text_files import TextFiles
from pea.batches.text_states import Store, TextStates, digests
from pea.errors import CacheError, CheckpointError, DiskFullError
from pea.storage.leases import take
from pea.storage.location import Location

CAPTIONS = [f"caption {number}" for number in range(200)]


class Encoder:
    """Counts its calls; the second part is None, as of an encoder without a pooled embedding."""

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self, texts: Sequence[str]) -> tuple[torch.Tensor, None, torch.Tensor]:
        self.num_calls += 1
        lengths = torch.tensor([len(text) for text in texts])
        return torch.sin(lengths[:, None, None] * torch.arange(6.0).reshape(2, 3)), None, lengths


def states(folder: Path, encoder: Encoder, digest: str = "a", captions: Sequence[str] = CAPTIONS) -> TextStates:
    return TextStates(encoder, captions, store=Store(folder, digest))


def test_a_later_run_asks_the_files_and_gets_the_same_bits(tmp_path: Path) -> None:
    asked, plain = [CAPTIONS[150], "", CAPTIONS[3]], TextStates(Encoder(), CAPTIONS)
    for number in range(2):
        encoder = Encoder()
        answer = states(tmp_path, encoder)(asked)
        assert encoder.num_calls == (2 if number == 0 else 0)  # 201 captions in groups of 128
        for part, expected in zip(answer, plain(asked), strict=True):
            assert (part is None and expected is None) or torch.equal(part, expected)


def test_another_encoder_or_corpus_has_files_of_its_own(tmp_path: Path) -> None:
    states(tmp_path, Encoder())
    for digest, captions in (("b", CAPTIONS), ("a", CAPTIONS[:-1])):
        encoder = Encoder()
        states(tmp_path, encoder, digest, captions)
        assert encoder.num_calls == 2
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["bit", "short", "missing"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    states(tmp_path, Encoder())
    [file] = tmp_path.glob("*/part-0.npy")
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.unlink()
    if damage != "missing":
        file.write_bytes(data if damage == "bit" else data[:-8])
    with pytest.raises(CacheError, match=r"text states are damaged.*Remove this folder"):
        states(tmp_path, Encoder())


def test_a_broken_off_run_leaves_nothing(tmp_path: Path) -> None:
    def break_off(texts: Sequence[str]) -> tuple[torch.Tensor]:
        if texts[0] != "":
            raise KeyboardInterrupt
        return (torch.zeros(len(texts), 2),)

    with pytest.raises(KeyboardInterrupt):
        TextStates(break_off, CAPTIONS, store=Store(tmp_path, "a"))
    assert list(tmp_path.iterdir()) == []
    assert TextFiles(tmp_path, "a", digests(["", *CAPTIONS])).read() is None


class SlowEncoder(Encoder):
    """Takes long enough for every other process to want the states meanwhile."""

    def __call__(self, texts: Sequence[str]) -> tuple[torch.Tensor, None, torch.Tensor]:
        time.sleep(0.05)
        return super().__call__(texts)


def wait_then_ask(folder: Path, barrier: Barrier, calls: multiprocessing.SimpleQueue[int]) -> None:
    """What each of several processes does: asks several stores at the same time as the others."""
    for round_ in range(3):
        encoder = SlowEncoder()
        barrier.wait()
        states(folder, encoder, str(round_))(CAPTIONS)
        calls.put(encoder.num_calls)


@pytest.mark.slow
def test_of_processes_that_want_the_same_states_at_once_one_encodes_and_all_read(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, calls = context.Barrier(3, timeout=60), context.SimpleQueue()
    processes = [context.Process(target=wait_then_ask, args=(tmp_path, barrier, calls)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    assert sorted(calls.get() for _ in range(9)) == [0] * 6 + [2] * 3
    assert len(list(tmp_path.iterdir())) == 3, "no lock and nothing half-written is left"


def test_what_a_killed_process_left_is_no_store_and_goes(tmp_path: Path) -> None:
    folder = TextFiles(tmp_path, "a", digests(["", *CAPTIONS])).folder
    for name in (folder.name, f".{folder.name}.tmp-0123456789ab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part-0.npy").write_bytes(b"half")
    states(tmp_path, Encoder())
    assert list(tmp_path.iterdir()) == [folder]


def test_finished_states_need_no_lease(tmp_path: Path) -> None:
    states(tmp_path, Encoder())
    [folder] = tmp_path.iterdir()
    with take(Location.parse(folder), "a test"):
        states(tmp_path, Encoder())


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(errno.ENOSPC, "No space left"), DiskFullError, "cannot store the text states.*Make room"),
        (PermissionError(errno.EACCES, "denied"), CacheError, "cannot store the text states.*denied.*writable"),
        (CheckpointError("no such encoder"), CheckpointError, "^no such encoder$"),
    ],
)
def test_only_a_full_disk_is_called_one(tmp_path: Path, error: OSError, kind: type[Exception], message: str) -> None:
    def fail(texts: Sequence[str]) -> tuple[torch.Tensor]:
        raise error

    with pytest.raises(kind, match=message):
        TextStates(fail, CAPTIONS, store=Store(tmp_path, "a"))


@pytest.mark.slow
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    mounting = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(tmp_path)]
    try:
        subprocess.run(mounting, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk takes root")
    try:
        with pytest.raises(DiskFullError, match=r"cannot store the text states.*Make room"):
            TextStates(lambda texts: (torch.zeros(len(texts), 2000),), CAPTIONS, store=Store(tmp_path, "a"))
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)
