"""Records created if absent: one counts, whoever publishes at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from pea.errors import LocationError
from pea.storage import Location
from pea.storage.generations import counting, latest, publish, superseded


class TestContract:
    def test_the_highest_generation_counts(self, root: Location) -> None:
        assert latest(root, "p000") is None
        for generation in (0, 1, 9, 10):
            published = publish(root, "p000", b"%d" % generation, generation)
            assert published.won and published.record.generation == generation
        found = latest(root, "p000")
        assert found is not None and found[1] == b"10" and found[0].place == root / "p000.10.json"
        assert [record.generation for record in superseded(root)] == [0, 1, 9]

    def test_a_late_publisher_of_a_lower_generation_learns_what_counts(self, root: Location) -> None:
        publish(root, "p000", b"new", 3)
        for generation in (2, 3):
            published = publish(root, "p000", b"old", generation)
            assert not published.won
            assert (published.record.generation, published.data) == (3, b"new")

    def test_of_many_publishers_one_wins_and_all_learn_what_it_wrote(self, root: Location) -> None:
        at_once = Barrier(6)

        def try_to_publish(number: int) -> tuple[bool, bytes]:
            at_once.wait()
            published = publish(root, "p000", b"by %d" % number, 0)
            return published.won, published.data

        with ThreadPoolExecutor(6) as pool:
            results = list(pool.map(try_to_publish, range(6)))
        assert sum(won for won, _ in results) == 1
        assert {data for _, data in results} == {b"by %d" % [won for won, _ in results].index(True)}
        assert [entry.name for entry in root.entries()] == ["p000.0.json"]

    def test_names_are_kept_apart_and_strangers_are_passed_over(self, root: Location) -> None:
        for name in ("a", "a.1", "ab", "a b-ü"):
            publish(root, name, name.encode(), 0)
        for stranger in ("a.01.json", "a.x.json", "a.json", "a.1.json.bak", ".0.json", "note.txt", "folder/a.7.json"):
            (root / stranger).write_bytes(b"?")
        assert set(counting(root)) == {"a", "a.1", "ab", "a b-ü"}
        found = latest(root, "a")
        assert found is not None and found[1] == b"a"

    @pytest.mark.parametrize(("name", "generation"), [("a/b", 0), ("", 0), ("../x", 0), ("a", -1), ("a", 10**9)])
    def test_a_name_that_is_none_is_refused(self, root: Location, name: str, generation: int) -> None:
        with pytest.raises(LocationError):
            publish(root, name, b"", generation)
        assert list(root.entries(recursive=True)) == []
