"""Leases: one owner at a time, a dead one is told from a living one, and a lost lease is noticed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from pea.errors import AccessDeniedError, LeaseHeldError, LeaseLostError, StorageError
from pea.storage import Location, lease_records, leases
from pea.storage.lease_records import Owner
from pea.storage.leases import living_below, take
from pea.storage.processes import is_certainly_dead, this_process

ROOT = Path(__file__).parents[2]


def _seem_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every owner one whose process cannot be looked at from here."""
    monkeypatch.setattr(lease_records, "is_certainly_dead", lambda process: False)


def _forsake(lease: leases.Lease) -> None:
    """Stop renewing without giving back, as a machine does that loses its power."""
    lease._ended.set()


def living(place: Location) -> Owner | None:
    """Who holds a lease and is not known to be dead."""
    return living_below(place.parent).get(place.name)


def _age(place: Location, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store's clock be later."""
    store_time = lease_records._store_time
    monkeypatch.setattr(lease_records, "_store_time", lambda folder: store_time(folder) + seconds)


class TestContract:
    def test_a_lease_has_one_owner(self, root: Location) -> None:
        place = root / "leases/p000"
        assert living(place) is None
        with take(place, "writing p000") as lease:
            owner = living(place)
            assert owner is not None and owner.what == "writing p000" and owner.process.pid == os.getpid()
            with pytest.raises(LeaseHeldError, match=r"p000: somebody else is busy with it; got writing p000 by proc"):
                take(place, "the same")
            lease.confirm()
            assert not lease.lost
            assert list(living_below(root / "leases")) == ["p000"]
        assert living(place) is None
        assert list(root.entries(recursive=True)) == []

    def test_of_many_takers_one_succeeds(self, root: Location) -> None:
        at_once = Barrier(6)

        def try_to_take(_: int) -> leases.Lease | None:
            at_once.wait()
            try:
                return take(root / "contested", "a race")
            except LeaseHeldError:
                return None

        with ThreadPoolExecutor(6) as pool:
            for _ in range(3):
                held = [lease for lease in pool.map(try_to_take, range(6)) if lease is not None]
                assert len(held) == 1
                held[0].confirm()
                held[0].release()

    def test_an_expired_lease_is_taken_over_once_and_its_owner_notices(
        self, root: Location, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _seem_far_away(monkeypatch)
        place = root / "part"
        old = take(place, "the first", period_s=50, expiry_s=100)
        _forsake(old)
        with pytest.raises(LeaseHeldError):
            take(place, "too early", expiry_s=100)
        _age(place, 200, monkeypatch)
        assert living(place) is None
        at_once = Barrier(4)

        def try_to_take(number: int) -> leases.Lease | None:
            at_once.wait()
            try:
                return take(place, f"taker {number}", expiry_s=1000)
            except LeaseHeldError:
                return None

        with ThreadPoolExecutor(4) as pool:
            held = [lease for lease in pool.map(try_to_take, range(4)) if lease is not None]
        assert len(held) == 1 and held[0].generation >= 1
        old._ended.clear()  # the machine wakes up
        with pytest.raises(LeaseLostError, match="somebody else took it over"):
            old.confirm()
        assert old.lost
        old.release()
        held[0].confirm()
        held[0].release()
        assert list(root.entries(recursive=True)) == []

    def test_it_is_renewed_by_itself(self, root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
        _seem_far_away(monkeypatch)
        with take(root / "part", "long work", period_s=0.05, expiry_s=30) as lease:
            first = living(root / "part")
            assert first is not None
            deadline = time.monotonic() + 20
            while (now := living(root / "part")) is not None and now.renewals < first.renewals + 3:
                assert time.monotonic() < deadline, "it was not renewed"
                time.sleep(0.02)
            assert not lease.lost

    def test_a_record_that_cannot_be_read_is_respected_until_it_expires(
        self, root: Location, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number, content in enumerate([b"", b"{", b"[" * 4000, b'{"id": 1}', b"\xff" * 10000]):
            (root / f"part{number}.0.lease").write_bytes(content)
        assert len(living_below(root)) == 5
        _age(root, 2 * lease_records.EXPIRY_S, monkeypatch)
        assert living_below(root) == {}
        with take(root / "part0", "clearing") as lease:
            assert lease.generation == 1


def test_a_killed_owner_of_this_machine_is_known_at_once(tmp_path: Path) -> None:
    script = (
        "import sys; from pea.storage import Location, leases\n"
        "lease = leases.take(Location.parse(sys.argv[1]), 'to be killed'); print('held', flush=True); sys.stdin.read()"
    )
    place = Location.parse(tmp_path / "part")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(place)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(LeaseHeldError, match="to be killed"):
            take(place, "too early")
        process.send_signal(signal.SIGKILL)
        while living(place) is not None:
            time.sleep(0.01)
        with take(place, "its successor") as lease:  # nobody has waited for the dead process yet
            assert lease.generation == 1


def test_a_later_process_of_the_same_number_is_another(tmp_path: Path) -> None:
    process = this_process()
    assert not is_certainly_dead(process)
    assert is_certainly_dead(process.model_copy(update={"started": "1"}))
    assert not is_certainly_dead(process.model_copy(update={"started": "1", "machine": "elsewhere"}))
    assert not is_certainly_dead(process.model_copy(update={"started": "1", "machine": ""}))


def test_an_owner_that_could_not_renew_for_the_expiry_has_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = take(Location.parse(tmp_path / "part"), "work", period_s=50, expiry_s=100)
    now = leases._now()
    monkeypatch.setattr(leases, "_now", lambda: now + 101)
    assert lease.lost
    with pytest.raises(LeaseLostError, match="could not be renewed for 100 s"):
        lease.confirm()


def test_an_owner_whose_object_was_deleted_has_lost_it(tmp_path: Path) -> None:
    lease = take(Location.parse(tmp_path / "part"), "work")
    (tmp_path / "part.0.lease").unlink()
    with pytest.raises(LeaseLostError, match="its object is gone"):
        lease.confirm()


def test_an_owner_that_woke_while_it_was_judged_dead_keeps_others_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judgement and the taking over are two steps; between them the owner may renew."""
    _seem_far_away(monkeypatch)
    place = Location.parse(tmp_path / "part")
    old = take(place, "slow", period_s=50, expiry_s=100)
    create: Callable[..., leases.Lease | None] = leases._create

    def create_late(*arguments: object) -> leases.Lease | None:
        old.confirm()
        monkeypatch.setattr(leases, "_create", create)
        return create(*arguments)

    monkeypatch.setattr(leases, "_create", create_late)
    monkeypatch.setattr(leases, "living_owner", lambda generations, place: None)
    before = leases.generations_of(place)
    assert leases._create(place, before, "hasty", 50, 100) is None
    monkeypatch.undo()
    old.confirm()
    old.release()


def test_a_store_that_fails_for_a_while_does_not_end_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Location.parse(tmp_path / "part")
    with take(place, "work", period_s=0.02, expiry_s=60) as lease:
        working = leases.generations_of

        def broken(place: Location) -> list[lease_records.FoundLease]:
            raise StorageError("cannot list", where=place)

        monkeypatch.setattr(leases, "generations_of", broken)
        time.sleep(0.1)
        with pytest.raises(StorageError):
            lease.confirm()
        monkeypatch.setattr(leases, "generations_of", working)
        lease.confirm()
        assert not lease.lost


def test_waiting_for_an_owner(tmp_path: Path) -> None:
    place = Location.parse(tmp_path / "part")
    first = take(place, "first")
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(take, place, "second", expiry_s=61, wait_s=30)
        time.sleep(0.05)
        assert not second.done()
        first.release()
        second.result().release()


def test_where_nothing_may_be_written_a_lease_can_still_be_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Location.parse(tmp_path / "part")
    with take(place, "work"):
        _seem_far_away(monkeypatch)

        def refuse(self: Location, data: bytes) -> None:
            raise AccessDeniedError("cannot write", where=self)

        with monkeypatch.context() as patched:
            patched.setattr(Location, "write_bytes", refuse)
            assert living(place) is not None


def test_a_forked_process_neither_uses_nor_ends_the_lease(tmp_path: Path) -> None:
    place = Location.parse(tmp_path / "part")
    with take(place, "work") as lease:
        child = os.fork()
        if child == 0:
            try:
                lease.release()
                lease.confirm()
            except LeaseLostError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        lease.confirm()


def test_what_a_lease_says_is_plain_json(tmp_path: Path) -> None:
    with take(Location.parse(tmp_path / "part"), "writing p000"):
        stored = json.loads((tmp_path / "part.0.lease").read_text())
    assert stored["what"] == "writing p000" and stored["process"]["pid"] == os.getpid()
    assert set(stored) == {"id", "process", "what", "since", "expiry_s", "renewals"}
